"""Advantages: what a group of rewards says about each sibling. Siblings that the system lost or a
detector dropped are not in the list at all, so they have no vote in the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

Advantage = Callable[[Sequence[float]], list[float]]

STD_EPS = 1e-6
"""Added to the standard deviation before dividing."""


def mean_centred(rewards_G: Sequence[float]) -> list[float]:
    """A_i = r_i - mean(r). Keeps the scale of the reward, so that a group split by a small bonus
    does not get full-size gradients. Dr. GRPO (Liu et al. 2025, arXiv 2503.20783, eq. 3)."""
    mean = fmean(rewards_G)
    return [r - mean for r in rewards_G]


def grpo(rewards_G: Sequence[float]) -> list[float]:
    """A_i = (r_i - mean(r)) / (std(r) + eps), unbiased std; zeros for a group without spread.
    GRPO (Shao et al. 2024, arXiv 2402.03300, sec. 4.1.2)."""
    centred = mean_centred(rewards_G)
    if len(centred) < 2:
        return [0.0] * len(centred)
    std = math.sqrt(sum(a * a for a in centred) / (len(centred) - 1))
    return [a / (std + STD_EPS) for a in centred]


def rloo(rewards_G: Sequence[float]) -> list[float]:
    """A_i = r_i - mean of the others' rewards = G/(G-1) (r_i - mean(r)).
    RLOO (Ahmadian et al. 2024, arXiv 2402.14740, eq. 8)."""
    count = len(rewards_G)
    if count < 2:
        return [0.0] * count
    return [a * count / (count - 1) for a in mean_centred(rewards_G)]


def maxrl(rewards_G: Sequence[float]) -> list[float]:
    """A_i = (r_i - mean(r)) / mean(r): hard prompts weigh more; zeros if nobody succeeded.
    MaxRL (2026, arXiv 2602.02710)."""
    mean = fmean(rewards_G)
    if mean == 0:
        return [0.0] * len(rewards_G)
    return [a / mean for a in mean_centred(rewards_G)]


def reinforce(rewards_G: Sequence[float]) -> list[float]:
    """A_i = r_i, no baseline. Williams 1992."""
    return list(rewards_G)


ADVANTAGES: dict[str, Advantage] = {
    "mean_centred": mean_centred,
    "grpo": grpo,
    "rloo": rloo,
    "maxrl": maxrl,
    "reinforce": reinforce,
}
