"""Corrections for sampling from another policy than the one that trains.

The engine samples from mu (its kernels, its precision, perhaps older weights); the learner's policy
before the update is pi_old. rho = pi_old / mu says how far apart they are. A correction turns rho
into a weight per token; 0 removes the token. Nothing here carries a gradient: a weight with one
would add a bias of log pi * grad rho.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rltrain.algo.ratio import log_ratio, sequence_mean, sequence_sum

Correction = Callable[..., Tensor]


def none(old_N: Tensor, behaviour_N: Tensor, seq_N: Tensor, sequences: int) -> Tensor:
    """Weight 1: trust that mu = pi_old."""
    return torch.ones_like(old_N)


def token_tis(
    old_N: Tensor, behaviour_N: Tensor, seq_N: Tensor, sequences: int, *, cap: float = 2.0
) -> Tensor:
    """min(rho_t, cap) per token: truncated importance sampling (Yao et al. 2025)."""
    return log_ratio(old_N, behaviour_N).exp().clamp(max=cap)


def sequence_tis(
    old_N: Tensor, behaviour_N: Tensor, seq_N: Tensor, sequences: int, *, cap: float = 2.0
) -> Tensor:
    """min(prod_t rho_t, cap), the same for all tokens of a sequence."""
    total_S = sequence_sum(log_ratio(old_N, behaviour_N), seq_N, sequences)
    return total_S.clamp(-20, 20).exp().clamp(max=cap)[seq_N]


def sequence_mis(
    old_N: Tensor, behaviour_N: Tensor, seq_N: Tensor, sequences: int, *, cap: float = 3.0
) -> Tensor:
    """rho(y) where rho(y) <= cap, else 0: masks a sequence too far off (Liu, Li et al. 2025)."""
    total_S = sequence_sum(log_ratio(old_N, behaviour_N), seq_N, sequences)
    rho_S = total_S.clamp(-20, 20).exp()
    return torch.where(rho_S <= cap, rho_S, torch.zeros_like(rho_S))[seq_N]


def icepop(
    old_N: Tensor,
    behaviour_N: Tensor,
    seq_N: Tensor,
    sequences: int,
    *,
    low: float = 0.5,
    high: float = 5.0,
) -> Tensor:
    """rho_t where low <= rho_t <= high, else 0: two-sided token mask (IcePop, Ling team 2025)."""
    rho_N = log_ratio(old_N, behaviour_N).exp()
    return torch.where((rho_N >= low) & (rho_N <= high), rho_N, torch.zeros_like(rho_N))


def geometric_rejection(
    old_N: Tensor,
    behaviour_N: Tensor,
    seq_N: Tensor,
    sequences: int,
    *,
    low: float = 0.99,
    high: float = 1.01,
) -> Tensor:
    """1 where low <= rho(y)^(1/T) <= high, else 0: rejection by the geometric mean."""
    mean_S = sequence_mean(log_ratio(old_N, behaviour_N), seq_N, sequences).exp()
    return ((mean_S >= low) & (mean_S <= high)).to(old_N.dtype)[seq_N]


CORRECTIONS: dict[str, Correction] = {
    "none": none,
    "token_tis": token_tis,
    "sequence_tis": sequence_tis,
    "sequence_mis": sequence_mis,
    "icepop": icepop,
    "geometric_rejection": geometric_rejection,
}


def mismatch_sums(old_N: Tensor, behaviour_N: Tensor) -> dict[str, Tensor]:
    """Sums (not means) over tokens of what trainer and engine disagree by, so that micro-batches
    and ranks add up: |d|, k1 = -d, k3 = e^d - 1 - d with d = log(pi_old / mu), and the maximum
    |d|. E_mu[k3] = KL(mu || pi_old) in nats (Schulman 2020)."""
    d_N = log_ratio(old_N, behaviour_N)
    return {
        "mismatch/mean_abs_logprob": d_N.abs().sum(),
        "mismatch/k1": -d_N.sum(),
        "mismatch/k3": (d_N.exp() - 1 - d_N).sum(),
        "mismatch/max_abs_logprob": d_N.abs().max() if d_N.numel() else d_N.sum(),
    }
