"""What every verdict must satisfy, and the reason codes that the gates themselves use."""

from __future__ import annotations

import math

from rltrain.errors import EnvironmentFault
from rltrain.types import Verdict

NOT_APPLICABLE = "not_applicable"
"""A passing verdict whose reason starts with this code leaves the score of the gate before it."""
UNPARSED = "unparsed"
"""The check was not asked, because the answer has no canonical form."""
MOST_CHARS = 300
"""Of an exception's text in a fault."""


def is_applicable(verdict: Verdict) -> bool:
    """False for a verdict that says "this gate has nothing to say about this answer"."""
    return not (verdict.passed and verdict.reason.split(":", 1)[0] == NOT_APPLICABLE)


def require_unit(value: float, what: str) -> float:
    """Return `value` if it is a finite number in [0, 1].

    Raises `EnvironmentFault` naming `what` otherwise: a NaN or an out-of-range score says that the
    check is broken, not that the policy is wrong.
    """
    if not hasattr(value, "__float__"):  # text that looks like a number is none
        raise EnvironmentFault(f"{what} gave a {type(value).__name__}; it must give a number.")
    number = float(value)
    if not math.isfinite(number) or not 0.0 <= number <= 1.0:
        raise EnvironmentFault(f"{what} gave {number!r}; it must give a number in [0, 1].")
    return number


def raised(error: BaseException) -> str:
    """An exception as a fault's text: short, and without what UTF-8 cannot hold, since it may
    quote what a policy wrote."""
    text = f"raised {type(error).__name__}: {error}"[:MOST_CHARS]
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
