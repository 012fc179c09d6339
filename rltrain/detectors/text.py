"""Text as detectors compare it: one form for look-alike characters, case and spacing."""

from __future__ import annotations

import re
import unicodedata

from rltrain.types import Task

INVISIBLE = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\U000e0000-\U000e007f]"
)
"""Characters that print nothing: soft hyphen, zero-width, direction marks, tag characters."""
_SPACE = re.compile(r"\s+")


def normalise(text: str) -> str:
    """Compatibility-normalised (NFKC), without invisible characters, case-folded; lines kept."""
    return unicodedata.normalize("NFKC", INVISIBLE.sub("", text)).casefold()


def squeeze(text: str) -> str:
    """`normalise` with every run of white space made one space."""
    return _SPACE.sub(" ", normalise(text)).strip()


def request(task: Task) -> str:
    """What the user asked, all user messages joined. The system prompt is ours, not theirs."""
    return "\n".join(message.content for message in task.prompt if message.role == "user")
