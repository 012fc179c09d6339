"""Rejection: a sequence whose tokens are off on average is left out; the others keep weight 1.

An average does not grow with length, as a product of ratios does: 1.01 ^ 500 = 145.
"""

from __future__ import annotations

from torch import Tensor

from rltrain.algo.ratio import log_ratio, sequence_mean
from rltrain.algo.scored import Scored


def geometric(scored: Scored, *, mean_low: float = 0.99, mean_high: float = 1.01) -> Tensor:
    """1 where mean_low <= exp(mean_t d_t) <= mean_high, else 0, d = log(trainer / mu)

    Paper: Geo-RS (Liu, Li et al. 2025, "When speed kills stability"), no arXiv
    """
    d_N = log_ratio(scored.trainer, scored.behaviour)
    mean_S = sequence_mean(d_N, scored.seq, scored.sequences).exp()
    return ((mean_S >= mean_low) & (mean_S <= mean_high)).to(d_N.dtype)[scored.seq]


def k3(scored: Scored, *, max_nats: float = 0.01) -> Tensor:
    """1 where mean_t (e^d - 1 - d) <= max_nats, else 0, d = log(trainer / mu)

    The mean estimates KL(mu || trainer) in nats per token; unlike the geometric mean, errors of
    opposite sign do not cancel.

    Paper: K3 estimator (Schulman 2020), no arXiv
    """
    d_N = log_ratio(scored.trainer, scored.behaviour)
    mean_S = sequence_mean(d_N.exp() - 1 - d_N, scored.seq, scored.sequences)
    return (mean_S <= max_nats).to(d_N.dtype)[scored.seq]
