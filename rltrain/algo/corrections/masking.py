"""Masked importance sampling: what is too far off gets weight 0 instead of a capped one."""

from __future__ import annotations

import torch
from torch import Tensor

from rltrain.algo.ratio import ratio, sequence_ratio
from rltrain.algo.scored import Scored


def _within(weight_X: Tensor, judged_X: Tensor, low: float, high: float) -> Tensor:
    """`weight` where low <= `judged` <= high, else 0."""
    inside_X = (judged_X >= low) & (judged_X <= high)
    return torch.where(inside_X, weight_X, torch.zeros_like(weight_X))


def icepop(scored: Scored, *, low: float = 0.5, high: float = 5.0) -> Tensor:
    """rho_t where low <= trainer_t / mu_t <= high, else 0, rho = pi_old / mu

    Paper: IcePop (Ling team 2025), no arXiv
    """
    d_N = ratio(scored.trainer, scored.behaviour)
    return _within(ratio(scored.old, scored.behaviour), d_N, low, high)


def token(scored: Scored, *, cap: float = 3.0) -> Tensor:
    """rho_t where trainer_t / mu_t <= cap, else 0, rho = pi_old / mu

    IcePop with the upper bound only.

    Paper: Token-MIS (Liu, Li et al. 2025, "When speed kills stability"), no arXiv
    """
    return icepop(scored, low=0.0, high=cap)


def sequence(scored: Scored, *, cap: float = 3.0) -> Tensor:
    """rho(y) where prod_t trainer_t / mu_t <= cap, else 0, rho(y) = prod_t rho_t

    The same for all tokens of a sequence.

    Paper: Seq-MIS (Liu, Li et al. 2025, "When speed kills stability"), no arXiv
    """
    rho_S = sequence_ratio(scored.old, scored.behaviour, scored.seq, scored.sequences)
    d_S = sequence_ratio(scored.trainer, scored.behaviour, scored.seq, scored.sequences)
    return _within(rho_S, d_S, 0.0, cap)[scored.seq]
