"""CISPO: the importance weight is clipped, the gradient of log pi never is."""

from __future__ import annotations

from torch import Tensor

from rltrain.algo.losses.base import LossOutput
from rltrain.algo.ratio import log_ratio


def loss(
    new_N: Tensor,
    old_N: Tensor,
    advantages_N: Tensor,
    seq_N: Tensor,
    sequences: int,
    *,
    clip_high: float = 5.0,
) -> LossOutput:
    """-sg(min(r, clip_high)) A log pi: every token keeps a gradient. MiniMax-M1 (arXiv 2506.13585,
    eq. 4); the default bound is ScaleRL's (arXiv 2510.13786)."""
    ratio_N = log_ratio(new_N, old_N).exp().detach()
    loss_N = -ratio_N.clamp(max=clip_high) * advantages_N * new_N
    return LossOutput(loss_N, (ratio_N > clip_high).to(new_N.dtype))
