"""What an answer's length does to its reward, and whether a truncated answer is trained on."""

from __future__ import annotations

from dataclasses import dataclass


def soft_overlong(length: int, horizon: int, cache: int) -> float:
    """Penalty in [-1, 0] for an answer of `length` tokens (eq. 13):

        0                            length <= horizon - cache
        (horizon - cache - length) / cache    up to `horizon`, where it reaches -1
        -1                           beyond

    `horizon` is the longest answer allowed, `cache` the tokens before it in which the penalty
    grows; 0 leaves only the step to -1 beyond the horizon.

    Paper: DAPO, arXiv 2503.14476"""
    free = horizon - cache
    if length <= free:
        return 0.0
    if length > horizon:
        return -1.0
    return (free - length) / cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlong:
    """What happens to answers near or over the token budget. The default is nothing."""

    filter: bool = False
    """Truncated answers are left out: not trained on, and without a vote in the baseline."""
    horizon: int = 0
    """Longest answer without the full penalty, in sampled tokens."""
    cache: int = 0
    """Tokens before the horizon in which the penalty grows; 0 switches the penalty off."""
    penalty: float = 1.0
    """What the full penalty takes off the reward."""

    def shaping(self, length: int) -> float:
        """Added to the reward of an answer of `length` tokens; 0 or negative."""
        if not self.cache:
            return 0.0
        return self.penalty * soft_overlong(length, self.horizon, self.cache)
