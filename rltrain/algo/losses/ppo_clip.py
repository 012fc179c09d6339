"""PPO's clipped surrogate, with DAPO's separate upper range, dual clip and a hard upper bound."""

from __future__ import annotations

import torch

from rltrain.algo.losses.base import LossOutput, clipped_surrogate
from rltrain.algo.ratio import ratio
from rltrain.algo.scored import Scored


def loss(
    scored: Scored,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float = 0.0,
    delta: float = 0.0,
) -> LossOutput:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), r = pi / pi_old

    PPO's eq. 7; `clip_high > clip_low` is DAPO's clip-higher (its eq. 10). `dual_clip` c > 1 bounds
    the loss of negative advantages by -cA (arXiv 1912.09729); `delta` > 1 bounds r from above
    before the min (INTELLECT-2, arXiv 2505.07291); 0 switches either off. GRPO averages this per
    sequence, DAPO over tokens, Dr. GRPO divides by a constant.

    Paper: PPO, arXiv 1707.06347; DAPO, arXiv 2503.14476
    """
    ratio_N = ratio(scored.new, scored.old)
    if not delta:
        loss_N, flat_N = clipped_surrogate(ratio_N, scored.advantages, clip_low, clip_high)
    else:
        plain_N = -ratio_N.clamp(max=delta) * scored.advantages
        clipped_N = -ratio_N.clamp(1 - clip_low, 1 + clip_high) * scored.advantages
        loss_N = torch.maximum(plain_N, clipped_N)
        flat_N = ((clipped_N > plain_N) | (ratio_N > delta)).to(loss_N.dtype)
    if dual_clip:
        bound_N = -dual_clip * scored.advantages
        over_N = (scored.advantages < 0) & (loss_N > bound_N)
        loss_N, flat_N = torch.where(over_N, bound_N, loss_N), flat_N.masked_fill(over_N, 1.0)
    return LossOutput(loss_N, flat_N)
