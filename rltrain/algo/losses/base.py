"""What every policy loss returns, and the surrogate that several of them share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rltrain.algo.ratio import ratio
from rltrain.algo.scored import Scored


class LossOutput(NamedTuple):
    """Per-token results of a policy loss, both [N]."""

    loss: Tensor
    """To be minimised, before correction and aggregation."""
    clipped: Tensor
    """1.0 where clipping removed the gradient, else 0.0; for the log."""


def clipped_surrogate(
    ratio_N: Tensor, advantages_N: Tensor, clip_low: float, clip_high: float
) -> LossOutput:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), for a ratio of any kind."""
    plain_N = -ratio_N * advantages_N
    clipped_N = -ratio_N.clamp(1 - clip_low, 1 + clip_high) * advantages_N
    return LossOutput(torch.maximum(plain_N, clipped_N), (clipped_N > plain_N).to(plain_N.dtype))


def weighted_gradient(scored: Scored, keep_N: Tensor, cap: float) -> LossOutput:
    """-sg(min(r, cap)) A log pi where `keep_N` (bool), else 0: a trust region that masks tokens
    instead of clipping their ratio."""
    weight_N = ratio(scored.new, scored.old).clamp(max=cap).detach() * keep_N
    return LossOutput(-weight_N * scored.advantages * scored.new, (~keep_N).to(scored.new.dtype))


def centred_product(scored: Scored) -> Tensor:
    """(A - mean A) (log pi - mean log pi) per token [N] without gradient: each token's share of
    the covariance that makes entropy fall. The means are those of the micro-batch."""
    new_N = scored.new.detach()
    return (scored.advantages - scored.advantages.mean()) * (new_N - new_N.mean())
