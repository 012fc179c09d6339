"""DPPO with the binary KL divergence as its trust region."""

from __future__ import annotations

import torch

from rltrain.algo.losses.base import LossOutput, weighted_gradient
from rltrain.algo.scored import Scored

EPS = 1e-8
"""Added to the probability of "another token", which may be 0."""


def loss(
    scored: Scored, *, low: float = 0.05, high: float = 0.05, ratio_cap: float = 20.0
) -> LossOutput:
    """-sg(min(r, ratio_cap)) A log pi where KL2 <= bound or pi moved against A, else 0

    KL2 = o log(o/p) + (1-o) log((1-o)/(1-p)) with o = pi_old, p = pi of the sampled token: the KL
    of the policies collapsed to "this token or another". The bound is `high` for A > 0, else
    `low`. The paper's r is pi / mu: use `proximal=behaviour`. It averages over tokens.

    Paper: DPPO, arXiv 2602.04879
    """
    new_N = scored.new.detach()
    p_N, o_N = new_N.exp(), scored.old.exp()
    kl_N = o_N * (scored.old - new_N) + (1 - o_N) * ((1 - o_N + EPS) / (1 - p_N + EPS)).log()
    keep_N = torch.where(
        scored.advantages > 0, (kl_N <= high) | (p_N <= o_N), (kl_N <= low) | (p_N >= o_N)
    )
    return weighted_gradient(scored, keep_N, ratio_cap)
