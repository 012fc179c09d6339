"""Veto: one token that the learner would hardly ever have sampled spoils its sequence."""

from __future__ import annotations

from torch import Tensor

from rltrain.algo.ratio import ratio, sequence_sum
from rltrain.algo.scored import Scored


def veto(scored: Scored, *, floor: float = 1e-4) -> Tensor:
    """0 for a sequence with any trainer_t / mu_t < floor, else 1

    Paper: Rollout correction of verl and slime (Liu, Li et al. 2025), no arXiv
    """
    broken_N = (ratio(scored.trainer, scored.behaviour) < floor).to(scored.old.dtype)
    broken_S = sequence_sum(broken_N, scored.seq, scored.sequences)
    return (broken_S == 0).to(scored.old.dtype)[scored.seq]
