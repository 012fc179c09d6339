"""KL-Cov: the tokens that make entropy collapse most are held near the old policy."""

from __future__ import annotations

import torch

from rltrain.algo.losses.base import LossOutput, centred_product
from rltrain.algo.ratio import log_ratio
from rltrain.algo.scored import Scored


def loss(scored: Scored, *, share: float = 2e-4, coef: float = 1.0) -> LossOutput:
    """-r A, plus coef |log r| on the `share` of tokens with the largest covariance, r = pi / pi_old

    cov = (A - mean A)(log pi - mean log pi). Means and ranking are those of the micro-batch, of
    which at least one token is chosen, so the result depends on how a step is split. On policy
    |log r| has no gradient: the penalty acts from the second pass over a batch on.

    Paper: The Entropy Mechanism (KL-Cov), arXiv 2505.22617
    """
    log_N = log_ratio(scored.new, scored.old)
    loss_N = -log_N.exp() * scored.advantages
    count = min(max(1, int(share * len(loss_N))), len(loss_N))
    chosen = centred_product(scored).topk(count).indices
    held_N = torch.zeros_like(loss_N).index_fill(0, chosen, coef)
    return LossOutput(loss_N + held_N * log_N.abs(), torch.zeros_like(loss_N))
