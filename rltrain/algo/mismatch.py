"""How far the engine that sampled is from the learner, d = log(trainer / mu) per token.

Every function returns values whose means are the metrics, so that micro-batches and ranks add up as
sums and counts.
"""

from __future__ import annotations

from torch import Tensor

from rltrain.algo.ratio import log_ratio, sequence_ratio
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


def effective_share(mean: float, mean_of_squares: float) -> float:
    """Effective sample size as a share of the tokens: (mean w)^2 / mean w^2, in (0, 1].
    Kong 1992."""
    return mean**2 / mean_of_squares if mean_of_squares else 0.0
