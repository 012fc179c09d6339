"""Where in an answer the query stands, and what stands around it."""

from __future__ import annotations

import re
from itertools import islice

from rltrain_envs.segments.grammar import QuerySyntaxError, clean_prefix, parse
from rltrain_envs.segments.tokens import KEYWORDS

MAX_SEARCHED = 1000
"""Characters in which a query behind other text is looked for."""
_NAME = re.compile(r"[A-Za-z]\w*(?:[_.]\w+)+", re.ASCII)
_REFUSAL = re.compile(r"CANNOT:\s*\w+", re.ASCII)
_WORD = re.compile(r"[^\W\d_]{2,}")
# Three plain words in a row are prose: names have underscores, and operators stand between them.
_PROSE = re.compile(r"(?<![\w.'])(?:[a-z]{2,}\s+){2,}[a-z]{2,}(?![\w.])")
_CONTINUES = re.compile(
    r"\s*(?:(?:AND|OR|NOT|NULL|CONTAINS|MATCHES|BETWEEN|IS)\b|[()=<>!,'\d]|-\d)"
)


def attempts_query(text: str) -> bool:
    """True if the text begins like a query, however badly it goes on.

    It does if its first clause can be read, or if its first word is spelled like an attribute."""
    text = text.strip()
    return clean_prefix(text) > 0 or _NAME.match(text.lstrip("( ")) is not None


def outside_text(text: str) -> str | None:
    """Words before or after a query or a refusal, or None.

    A query that merely breaks off or is misspelled has nothing outside: what follows it still
    begins like an operator, a bracket or a connective, and is not prose."""
    text = text.strip()
    try:
        parse(text)
    except QuerySyntaxError:
        pass
    else:
        return None
    refusal = _REFUSAL.match(text)
    end = refusal.end() if refusal else clean_prefix(text)
    rest = text[end : end + MAX_SEARCHED]
    if end > 0 or attempts_query(text):
        prose = _PROSE.search(rest) or (end > 0 and _WORD.search(rest) and not _continues(rest))
        return rest.strip() if prose else None
    # The first place from which a clause can be read; the bounds keep hostile answers cheap.
    for match in islice(_NAME.finditer(rest), 20):
        head = rest[: match.start()]
        words = [word for word in _WORD.findall(head) if word.upper() not in KEYWORDS]
        if words and clean_prefix(rest[match.start() :]) > 0:
            return head.strip()
    return None


def _continues(rest: str) -> bool:
    return "\n" not in rest and _CONTINUES.match(rest) is not None
