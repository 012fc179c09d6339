"""What an advantage is given, and how a formula for one group becomes one for a whole step."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Concatenate, ParamSpec

P = ParamSpec("P")

STD_EPS = 1e-6
"""Default of what is added to a standard deviation before dividing by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRewards:
    """What the siblings of one task earned. Only those with a vote are in it: a sibling that the
    system lost, a detector dropped or a filter left out is not in these lists at all."""

    rewards: tuple[float, ...]
    """[G] the rewards that are trained on."""
    lengths: tuple[int, ...]
    """[G] tokens that the policy sampled, at least 1."""
    components: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """name -> [G], the parts that `gdpo` normalises one by one; no other method looks at them."""
    greedy: float | None = None
    """Reward of the greedy answer to the same task, which `remax` takes as its baseline."""


Advantage = Callable[[Sequence[GroupRewards]], list[list[float]]]
"""All groups of a step -> one number for each sibling of each group, in the same order."""


def per_group(
    formula: Callable[Concatenate[GroupRewards, P], list[float]],
) -> Callable[Concatenate[Sequence[GroupRewards], P], list[list[float]]]:
    """Lift a formula that needs one group only to the groups of a step."""

    @functools.wraps(formula)
    def over_step(
        groups: Sequence[GroupRewards], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[list[float]]:
        return [formula(group, *args, **kwargs) for group in groups]

    return over_step


def centred(values_G: Sequence[float]) -> list[float]:
    """x - mean(x); exactly 0 where all are equal, which rounding would not give. A sequence with
    advantages of exactly 0 need not be computed."""
    if min(values_G) == max(values_G):
        return [0.0] * len(values_G)
    mean = fmean(values_G)
    return [value - mean for value in values_G]


def std(values: Sequence[float], ddof: float = 1.0) -> float:
    """Standard deviation: unbiased for `ddof` 1, of the population for 0; 0 for a lone value."""
    if len(values) <= ddof:
        return 0.0
    return math.sqrt(sum(a * a for a in centred(values)) / (len(values) - ddof))


def whitened(values: Sequence[float], counts: Sequence[int], eps: float) -> list[float]:
    """(x - mean) / (std + eps) over tokens: `counts` says how many tokens carry each value.
    Unbiased std; zeros where all values are equal."""
    total = sum(counts)
    if min(values, default=0.0) == max(values, default=0.0) or total < 2:
        return [0.0] * len(values)
    mean = sum(c * v for c, v in zip(counts, values, strict=True)) / total
    squares = sum(c * (v - mean) ** 2 for c, v in zip(counts, values, strict=True))
    scale = math.sqrt(squares / (total - 1)) + eps
    return [(value - mean) / scale for value in values]


def flat(rows: Sequence[Sequence[float]]) -> list[float]:
    """All values of all groups, in order."""
    return [value for row in rows for value in row]


def in_groups(values: Sequence[float], groups: Sequence[GroupRewards]) -> list[list[float]]:
    """`flat` undone: as many values for each group as it has siblings."""
    rest = iter(values)
    return [[next(rest) for _ in group.rewards] for group in groups]
