"""How far the engine that sampled is from the learner, d = log(trainer / mu) per token.

Every function returns values whose means are the metrics, so that micro-batches and ranks add up as
sums and counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rltrain.algo.ratio import log_ratio, sequence_ratio, sequence_sum
from rltrain.algo.scored import Scored


def mismatch(scored: Scored) -> dict[str, Tensor]:
    """Values by metric, per token [N] or per sequence [S].

    k1 = -d, k2 = d^2/2 and k3 = e^d - 1 - d estimate KL(mu || trainer) in nats per token (Schulman
    2020); `chi2_token` = e^2d - 1 and `chi2_sequence`, the same of a sequence's product, estimate
    the variance of importance weights: 0 for an engine that agrees. `rho` and `rho_sq` are e^d
    and e^2d, from which `effective_share` is made."""
    d_N = log_ratio(scored.trainer, scored.behaviour)
    rho_S = sequence_ratio(scored.trainer, scored.behaviour, scored.seq, scored.sequences)
    rho_N = d_N.exp()
    return {
        "mismatch/mean_abs_logprob": d_N.abs(),
        "mismatch/k1": -d_N,
        "mismatch/k2": d_N**2 / 2,
        "mismatch/k3": rho_N - 1 - d_N,
        "mismatch/chi2_token": rho_N**2 - 1,
        "mismatch/chi2_sequence": rho_S**2 - 1,
        "mismatch/rho": rho_N,
        "mismatch/rho_sq": rho_N**2,
    }


def by_lag(scored: Scored, lag_N: Tensor) -> dict[str, Tensor]:
    """|d| of the tokens of each lag: what kernels and precision do (lag 0), and what age adds.

    The length of a list is the number of its tokens."""
    d_N = log_ratio(scored.trainer, scored.behaviour).abs()
    lags = sorted(set(lag_N.tolist()))
    return {f"mismatch/mean_abs_logprob/lag_{lag}": d_N[lag_N == lag] for lag in lags}


class Gaps(NamedTuple):
    """d of a set of whole sequences, for what is no mean: quantiles, maxima, sums over an answer.
    Of several micro-batches or ranks, `joined`."""

    tokens: Tensor
    """[N], d = log(trainer / mu), not clamped."""
    first: Tensor
    """[N] bool: whether it is the first trained token of its sequence."""
    total: Tensor
    """[S], the sum of a sequence's d."""
    length: Tensor
    """[S], its trained tokens."""


def gaps(trainer_N: Tensor, behaviour_N: Tensor, seq_N: Tensor, sequences: int) -> Gaps:
    """seq_N: int64 [N], which sequence a token belongs to, never decreasing."""
    d_N = trainer_N - behaviour_N
    first_N = torch.ones_like(seq_N, dtype=torch.bool)
    first_N[1:] = seq_N[1:] != seq_N[:-1]
    length_S = sequence_sum(torch.ones_like(d_N), seq_N, sequences)
    return Gaps(d_N, first_N, sequence_sum(d_N, seq_N, sequences), length_S)


def joined(parts: Sequence[Gaps]) -> Gaps:
    """All sequences of all parts; at least one part."""
    return Gaps(*(torch.cat(column) for column in zip(*parts, strict=True)))


def quantile(values_N: Tensor, share: float) -> Tensor:
    """The smallest value that at least this share of all do not exceed; NaN sorts as largest."""
    rank = max(math.ceil(share * len(values_N)), 1)
    return values_N.sort().values[rank - 1]


def described(found: Gaps) -> dict[str, Tensor]:
    """Scalars by metric. Nothing for no tokens; first or later tokens are left out if there are
    none.

    `sequence_kl` is the mean over answers of their summed -d; `slope_per_1k` the least-squares
    slope, through 0, of an answer's summed d over its length, times 1,000: 0 where errors cancel,
    and a length trap where they do not (arXiv 2510.26788, figure 2)."""
    if not len(found.tokens):
        return {}
    size_N = found.tokens.abs()
    length_S = found.length
    values = {
        "mismatch/p50_abs_logprob": quantile(size_N, 0.5),
        "mismatch/p99_abs_logprob": quantile(size_N, 0.99),
        "mismatch/max_abs_logprob": size_N.max(),
        "mismatch/max_ratio": log_ratio(size_N, torch.zeros_like(size_N)).exp().max(),
        "mismatch/sequence_kl": -found.total.mean(),
        "mismatch/slope_per_1k": 1000 * (length_S * found.total).sum() / (length_S**2).sum(),
        "mismatch/first_token": size_N[found.first].mean(),
    }
    if not bool(found.first.all()):
        values["mismatch/later_tokens"] = size_N[~found.first].mean()
    return values


def effective_share(mean: float, mean_of_squares: float) -> float:
    """Effective sample size as a share of the tokens: (mean w)^2 / mean w^2, in (0, 1].
    Kong 1992."""
    return mean**2 / mean_of_squares if mean_of_squares else 0.0
