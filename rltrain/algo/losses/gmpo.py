"""GMPO: the geometric mean of a sequence's clipped ratios."""

from __future__ import annotations

import torch

from rltrain.algo.losses.base import LossOutput
from rltrain.algo.ratio import log_ratio, sequence_mean
from rltrain.algo.scored import Scored


def loss(scored: Scored, *, clip_low: float = 0.4, clip_high: float = 0.4) -> LossOutput:
    """-exp(mean_t c_t) A, c_t = log r_t clipped to [-clip_low, clip_high] on the side A points to

    A > 0 bounds log r from above, A < 0 from below, in nats. The gradient is spread over the
    tokens as sg(exp(mean c)) exp(c_t) / sg(exp(c_t)), so that `sequence_mean` gives the paper's
    objective: the geometric mean is the average over the sequence, and nothing else divides.

    Paper: GMPO, arXiv 2507.20673
    """
    log_N = log_ratio(scored.new, scored.old)
    bound_N = log_N.clamp(-clip_low, clip_high)
    clipped_N = torch.where(
        scored.advantages > 0, torch.minimum(log_N, bound_N), torch.maximum(log_N, bound_N)
    )
    mean_S = sequence_mean(clipped_N, scored.seq, scored.sequences).detach().exp()
    ratio_N = mean_S[scored.seq] * (clipped_N - clipped_N.detach()).exp()
    flat_N = torch.where(scored.advantages > 0, log_N > clip_high, log_N < -clip_low)
    return LossOutput(-ratio_N * scored.advantages, flat_N.to(ratio_N.dtype))
