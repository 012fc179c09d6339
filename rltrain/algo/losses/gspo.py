"""GSPO: one ratio per sequence, clipped as a whole."""

from __future__ import annotations

from rltrain.algo.losses.base import LossOutput, clipped_surrogate
from rltrain.algo.ratio import log_ratio, sequence_mean
from rltrain.algo.scored import Scored


def loss(scored: Scored, *, clip_low: float = 3e-4, clip_high: float = 4e-4) -> LossOutput:
    """-min(s A, clip(s, 1 - clip_low, 1 + clip_high) A), s = exp(mean_t log(pi_t / pi_old_t))

    The gradient is spread over the tokens as s_t = sg(s) pi_t / sg(pi_t) (eq. 5 and 13), so any
    aggregation applies. The paper averages per sequence (`sequence_mean`); with `sequence_sum` it
    is LUSPO, which gives long answers their full weight (arXiv 2602.05261).

    Paper: GSPO, arXiv 2507.18071; LUSPO, arXiv 2602.05261
    """
    log_N = log_ratio(scored.new, scored.old)
    s_N = sequence_mean(log_N, scored.seq, scored.sequences).detach().exp()[scored.seq]
    ratio_N = s_N * (scored.new - scored.new.detach()).exp()
    return clipped_surrogate(ratio_N, scored.advantages, clip_low, clip_high)
