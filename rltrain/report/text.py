"""Numbers and hostile text, as people read them."""

from __future__ import annotations

import datetime
import math
import unicodedata
from typing import Any

NONE = "n/a"
_SHOWN = 1_500
_SPACE = "\u00a0"
_HIDDEN = {"Cf", "Co", "Cn"}
"""Unicode categories that can turn text around or hide it: bidi controls, zero-width, more."""


def number(value: Any) -> float | None:
    """A finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def percent(value: Any, digits: int = 1) -> str:
    found = number(value)
    return NONE if found is None else f"{100 * found:.{digits}f}{_SPACE}%"


def points(value: Any) -> str:
    """A difference of two shares, in percentage points, with its sign."""
    found = number(value)
    if found is None:
        return NONE
    return f"{100 * found:+.1f}".replace("-", "\u2212")


def decimal(value: Any, digits: int = 3) -> str:
    """Few digits, but never 0.000 for something that is not 0."""
    found = number(value)
    if found is None:
        return NONE
    if found and abs(found) < 10 ** -digits:
        return f"{found:.1e}"
    return f"{found:,.{digits}f}"


def integer(value: Any) -> str:
    found = number(value)
    return NONE if found is None else f"{round(found):,}"


def duration(value: Any) -> str:
    found = number(value)
    if found is None:
        return NONE
    if found < 60:
        return f"{found:.1f}{_SPACE}s"
    minutes, seconds = divmod(round(found), 60)
    if minutes < 60:
        return f"{minutes}{_SPACE}min {seconds:02d}{_SPACE}s"
    return f"{minutes // 60}{_SPACE}h {minutes % 60:02d}{_SPACE}min"


def moment(value: Any) -> str:
    """A time stamp (seconds since 1970, or text as it is) in UTC."""
    found = number(value)
    if found is None:
        return str(value) if value else NONE
    stamp = datetime.datetime.fromtimestamp(found, tz=datetime.UTC)
    return stamp.strftime("%Y-%m-%d %H:%M:%S UTC")


def seconds_since_epoch(value: Any) -> float | None:
    """A time stamp given as seconds or in ISO 8601 (without a zone: UTC)."""
    found = number(value)
    if found is not None or not isinstance(value, str):
        return found
    try:
        stamp = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    return (stamp if stamp.tzinfo else stamp.replace(tzinfo=datetime.UTC)).timestamp()


def visible(value: Any, limit: int = _SHOWN) -> str:
    """Text with everything invisible made visible, and cut with a note of what was cut.

    Escaping is left to the template; this is about bidi overrides and control characters, with
    which an answer could look like another one."""
    text = "" if value is None else str(value)
    shown = "".join(map(_visible, text[:limit]))
    rest = len(text) - limit
    return f"{shown} … ({rest:,} more characters)" if rest > 0 else shown


def _visible(character: str) -> str:
    if character in "\n\t":
        return character
    code = ord(character)
    if code < 32 or 127 <= code < 160 or unicodedata.category(character) in _HIDDEN:
        return f"\u27e8U+{code:04X}\u27e9"
    return character


def words(name: str) -> str:
    """`ledger_conserved` -> `ledger conserved`."""
    return name.replace("_", " ")
