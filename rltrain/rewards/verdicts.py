"""What every verdict must satisfy, and the reason codes that the gates themselves use."""

from __future__ import annotations

import math

from rltrain.errors import EnvironmentFault
from rltrain.types import Verdict

NOT_APPLICABLE = "not_applicable"
"""A passing verdict whose reason starts with this code leaves the score of the gate before it."""
UNPARSED = "unparsed"
"""The judge was not asked, because the answer has no canonical form."""


def is_applicable(verdict: Verdict) -> bool:
    """False for a verdict that says "this gate has nothing to say about this answer"."""
    return not (verdict.passed and verdict.reason.split(":", 1)[0] == NOT_APPLICABLE)


def require_unit(value: float, what: str) -> float:
    """Return `value` if it is a finite number in [0, 1].

    Raises `EnvironmentFault` naming `what` otherwise: a NaN or an out-of-range score says that the
    check is broken, not that the policy is wrong.
    """
    number = float(value)
    if not math.isfinite(number) or not 0.0 <= number <= 1.0:
        raise EnvironmentFault(f"{what} gave {number!r}; it must give a number in [0, 1].")
    return number
