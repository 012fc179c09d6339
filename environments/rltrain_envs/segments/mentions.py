"""What a request names, read from its words alone: the facts that detectors may use."""

from __future__ import annotations

import re

_TAGS = (
    re.compile(r"(?<!-)\btag(?:ged|s)?\s+(?:with\s+|as\s+)?['\"]?([\w-]+)", re.IGNORECASE),
    re.compile(r"\b(?:the|a|an|our)\s+['\"]?([\w-]+)['\"]?\s+tags?\b", re.IGNORECASE),
    re.compile(r"\b(\w+)-tagged\b", re.IGNORECASE),
)


def mentioned_tags(request: str) -> tuple[str, ...]:
    """Literals that the request calls tags, in lower case and sorted.

    >>> mentioned_tags("customers tagged VIP or with the wholesale tag")
    ('vip', 'wholesale')
    """
    return tuple(sorted({word.lower() for tag in _TAGS for word in tag.findall(request)}))
