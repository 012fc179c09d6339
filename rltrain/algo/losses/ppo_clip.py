"""PPO's clipped surrogate, with DAPO's separate upper range, dual clip and a hard upper bound."""

from __future__ import annotations

import torch
from torch import Tensor

from rltrain.algo.losses.base import LossOutput
from rltrain.algo.ratio import log_ratio


def loss(  # noqa: PLR0913 - five tensors as every loss, four ranges by keyword
    new_N: Tensor,
    old_N: Tensor,
    advantages_N: Tensor,
    seq_N: Tensor,
    sequences: int,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float = 0.0,
    delta: float = 0.0,
) -> LossOutput:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = pi / pi_old.

    Schulman et al. 2017 (arXiv 1707.06347, eq. 7); clip_high > clip_low is DAPO's clip-higher
    (arXiv 2503.14476, eq. 10). `dual_clip` c > 1 bounds the loss of negative advantages by -cA
    (arXiv 1912.09729); `delta` > 1 bounds r from above before the min (INTELLECT-2, arXiv
    2505.07291); 0 switches either off.
    """
    ratio_N = log_ratio(new_N, old_N).exp()
    clipped_ratio_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    bounded_N = ratio_N.clamp(max=delta) if delta else ratio_N
    plain_N, clipped_N = -bounded_N * advantages_N, -clipped_ratio_N * advantages_N
    loss_N = torch.maximum(plain_N, clipped_N)
    flat_N = clipped_N > plain_N
    if delta:
        flat_N = flat_N | (ratio_N > delta)
    if dual_clip:
        bound_N = -dual_clip * advantages_N
        over_N = (advantages_N < 0) & (loss_N > bound_N)
        loss_N = torch.where(over_N, bound_N, loss_N)
        flat_N = flat_N | over_N
    return LossOutput(loss_N, flat_N.to(loss_N.dtype))
