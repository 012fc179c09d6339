"""GSPO: one ratio per sequence, clipped as a whole."""

from __future__ import annotations

import torch
from torch import Tensor

from rltrain.algo.losses.base import LossOutput
from rltrain.algo.ratio import log_ratio, sequence_mean


def loss(
    new_N: Tensor,
    old_N: Tensor,
    advantages_N: Tensor,
    seq_N: Tensor,
    sequences: int,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> LossOutput:
    """-min(s A, clip(s) A) with s = exp(mean_t log(pi_t / pi_old_t)), the gradient spread over the
    tokens as s_t = sg(s) pi_t / sg(pi_t). Zheng et al. 2025 (arXiv 2507.18071, eq. 5 and 13)."""
    log_N = log_ratio(new_N, old_N)
    s_N = sequence_mean(log_N, seq_N, sequences).detach().exp()[seq_N]
    ratio_N = s_N * (new_N - new_N.detach()).exp()
    clipped_N = -ratio_N.clamp(1 - clip_low, 1 + clip_high) * advantages_N
    plain_N = -ratio_N * advantages_N
    return LossOutput(torch.maximum(plain_N, clipped_N), (clipped_N > plain_N).to(new_N.dtype))
