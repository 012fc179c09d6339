"""Advantages whose scale comes from all groups of a step together."""

from __future__ import annotations

from collections.abc import Sequence

from rltrain.algo.advantages.base import (
    STD_EPS,
    GroupRewards,
    centred,
    flat,
    in_groups,
    std,
    whitened,
)


def lite_ppo(
    groups: Sequence[GroupRewards], eps: float = STD_EPS, ddof: float = 1.0
) -> list[list[float]]:
    """A_i = (r_i - mean of its group) / (std of all rewards of the step + eps): an easy group's
    small spread is not blown up.

    The std is that of the rewards, not of the centred ones: so TRL's `scale_rewards="batch"`.

    Paper: Lite PPO, arXiv 2508.08221"""
    scale = std(flat([group.rewards for group in groups]), ddof) + eps
    return [[a / scale for a in centred(group.rewards)] for group in groups]


def reinforce_pp(groups: Sequence[GroupRewards], eps: float = STD_EPS) -> list[list[float]]:
    """A = (r - mean) / (std + eps) over all trained tokens of the step, each carrying its answer's
    reward: gamma 1, and no KL in the reward. The baseline is that of the step, so that a group
    without spread does get advantages.

    Paper: REINFORCE++, arXiv 2501.03262"""
    return _whiten_tokens([list(group.rewards) for group in groups], groups, eps)


def reinforce_pp_baseline(
    groups: Sequence[GroupRewards], eps: float = STD_EPS
) -> list[list[float]]:
    """r - mean of its group, then (x - mean) / (std + eps) over all trained tokens of the step.

    Over tokens the centred rewards have a mean other than 0 where longer answers did better or
    worse; it is taken off too, so that a group without spread gets a small common advantage.

    Paper: REINFORCE++-baseline, arXiv 2501.03262"""
    return _whiten_tokens([centred(group.rewards) for group in groups], groups, eps)


def gpg(groups: Sequence[GroupRewards], f_norm: float = 1.0) -> list[list[float]]:
    """A_i = alpha (r_i - mean of its group) / f_norm, alpha = siblings of the step / siblings of
    groups with spread: groups that teach nothing do not dilute the gradient of the others.

    So the paper and its authors' code; verl divides by the count of rewards that are not 0.

    Paper: GPG, arXiv 2504.02546"""
    teaching = sum(len(g.rewards) for g in groups if min(g.rewards) != max(g.rewards))
    alpha = sum(len(g.rewards) for g in groups) / max(teaching, 1)
    return [[alpha * a / f_norm for a in centred(group.rewards)] for group in groups]


def gdpo(
    groups: Sequence[GroupRewards], eps: float = STD_EPS, **weights: float
) -> list[list[float]]:
    """S_i = sum_k w_k (r_ik - mean_k) / (std_k + eps) with mean and std of component k in its own
    group; A = (S - mean(S)) / (std(S) + eps) over all siblings of the step.

    Two answers with equal sums but different components stay different. `weights` are by component
    (`batch.samples.components` says which there are), 1 where not named.

    Paper: GDPO, arXiv 2601.05242"""
    sums = []
    for group in groups:
        total = [0.0] * len(group.rewards)
        for name, values_G in sorted(group.components.items()):
            scale = weights.get(name, 1.0) / (std(values_G) + eps)
            total = [t + scale * a for t, a in zip(total, centred(values_G), strict=True)]
        sums.append(total)
    flat_sums = flat(sums)
    return in_groups(whitened(flat_sums, [1] * len(flat_sums), eps), groups)


def _whiten_tokens(
    rows: Sequence[Sequence[float]], groups: Sequence[GroupRewards], eps: float
) -> list[list[float]]:
    counts = [length for group in groups for length in group.lengths]
    return in_groups(whitened(flat(rows), counts, eps), groups)
