"""Clip-Cov: a few of the tokens that make entropy collapse are left out."""

from __future__ import annotations

import torch

from rltrain.algo.losses.base import LossOutput, centred_product, clipped_surrogate
from rltrain.algo.ratio import ratio
from rltrain.algo.scored import Scored


def loss(
    scored: Scored,
    *,
    share: float = 2e-4,
    cov_low: float = 1.0,
    cov_high: float = 5.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> LossOutput:
    """ppo_clip, but 0 on a random `share` of all tokens among those with cov_low < cov < cov_high

    cov = (A - mean A)(log pi - mean log pi) of a token that PPO does not clip anyway. The means
    are those of the micro-batch, so the result depends on how a step is split. The number of tokens
    is rounded at random to keep its expectation: the authors' code takes at least one per
    micro-batch, which with small ones is many times the share. Draws from torch's generator.

    Paper: The Entropy Mechanism (Clip-Cov), arXiv 2505.22617
    """
    loss_N, flat_N = clipped_surrogate(
        ratio(scored.new, scored.old), scored.advantages, clip_low, clip_high
    )
    cov_N = centred_product(scored)
    where = ((cov_N > cov_low) & (cov_N < cov_high) & (flat_N == 0)).nonzero().flatten()
    count = int(share * len(loss_N) + float(torch.rand(())))
    chosen = where[torch.randperm(len(where), device=where.device)[:count]]
    drop_N = torch.zeros_like(flat_N, dtype=torch.bool).index_fill(0, chosen, True)
    return LossOutput(loss_N.masked_fill(drop_N, 0.0), flat_N.masked_fill(drop_N, 1.0))
