"""Advantages that need one group only: reward minus a baseline of its own, perhaps scaled."""

from __future__ import annotations

from rltrain.algo.advantages.base import STD_EPS, GroupRewards, centred, per_group, std


@per_group
def mean_centred(group: GroupRewards) -> list[float]:
    """A_i = r_i - mean(r). Keeps the scale of the reward, so that a group split by a small bonus
    does not get full-size gradients (eq. 3).

    Paper: Dr. GRPO, arXiv 2503.20783"""
    return centred(group.rewards)


@per_group
def grpo(group: GroupRewards, eps: float = STD_EPS, ddof: float = 1.0) -> list[float]:
    """A_i = (r_i - mean(r)) / (std(r) + eps); zeros for a group without spread (sec. 4.1.2).

    The paper does not say which std; unbiased (`ddof` 1) is what verl and TRL take.

    Paper: GRPO, arXiv 2402.03300"""
    scale = std(group.rewards, ddof) + eps
    return [a / scale for a in centred(group.rewards)]


@per_group
def rloo(group: GroupRewards) -> list[float]:
    """A_i = r_i - mean of the others' rewards = G / (G - 1) (r_i - mean(r)) (eq. 8).

    Paper: RLOO, arXiv 2402.14740"""
    count = len(group.rewards)
    if count < 2:
        return [0.0] * count
    return [a * count / (count - 1) for a in centred(group.rewards)]


@per_group
def maxrl(group: GroupRewards) -> list[float]:
    """A_i = (r_i - mean(r)) / mean(r): hard prompts weigh more; zeros if nobody succeeded.

    Defined for rewards that are not negative. A mean below 0, which a length penalty can make,
    would turn every sign round, so it counts as nobody succeeded.

    Paper: MaxRL, arXiv 2602.02710"""
    mean = sum(group.rewards) / len(group.rewards)
    if mean <= 0:
        return [0.0] * len(group.rewards)
    return [a / mean for a in centred(group.rewards)]


@per_group
def opo(group: GroupRewards) -> list[float]:
    """A_i = r_i - sum(l r) / sum(l), l the lengths in tokens: the baseline of least variance if the
    squared gradient of an answer grows with its length.

    Paper: OPO, arXiv 2505.23585"""
    if min(group.rewards) == max(group.rewards):
        return [0.0] * len(group.rewards)
    pairs = zip(group.lengths, group.rewards, strict=True)
    baseline = sum(length * reward for length, reward in pairs) / sum(group.lengths)
    return [reward - baseline for reward in group.rewards]


@per_group
def pass_at_k(group: GroupRewards, scale: float = 0.0, eps: float = STD_EPS) -> list[float]:
    """A_i = max(r) - max of the others' rewards: only a best answer that is alone at the top gets
    anything, what the group's best would have lost without it. k is the group's size.

    `scale` 1 divides by std(r) + eps, as verl does; the default is the leave-one-out form.

    Paper: Optimizing Language Models for Inference Time Objectives, arXiv 2503.19595"""
    if len(group.rewards) < 2:
        return [0.0] * len(group.rewards)
    best, second = sorted(group.rewards, reverse=True)[:2]
    over = std(group.rewards) + eps if scale else 1.0
    return [(best - second) / over if reward == best else 0.0 for reward in group.rewards]


@per_group
def remax(group: GroupRewards) -> list[float]:
    """A_i = r_i - r(greedy answer): a baseline that no sibling had a part in.

    Raises:
        ValueError: if there is no greedy answer; without one there is no baseline.

    Paper: ReMax, arXiv 2310.10505"""
    if group.greedy is None:
        raise ValueError("remax needs the reward of a greedy answer, and this group has none")
    return [reward - group.greedy for reward in group.rewards]


@per_group
def reinforce(group: GroupRewards) -> list[float]:
    """A_i = r_i, no baseline. Williams 1992.

    Paper: REINFORCE, doi 10.1007/BF00992696"""
    return list(group.rewards)
