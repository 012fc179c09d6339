"""DPPO with the binary total variation: a trust region in probabilities instead of ratios."""

from __future__ import annotations

import torch

from rltrain.algo.losses.base import LossOutput, weighted_gradient
from rltrain.algo.scored import Scored


def loss(
    scored: Scored, *, low: float = 0.2, high: float = 0.2, ratio_cap: float = 20.0
) -> LossOutput:
    """-sg(min(r, ratio_cap)) A log pi where sign(A) (pi - pi_old) <= bound, else 0

    The bound is `high` for A > 0, else `low`. |pi - pi_old| of the sampled token is the total
    variation of the two policies collapsed to "this token or another". Unlike a ratio it does not
    stop rare tokens for a tiny change. The paper's r is pi / mu: use `proximal=behaviour`. It
    averages over tokens (`token_mean`).

    Paper: DPPO, arXiv 2602.04879
    """
    moved_N = scored.new.detach().exp() - scored.old.exp()
    keep_N = torch.where(scored.advantages > 0, moved_N <= high, moved_N >= -low)
    return weighted_gradient(scored, keep_N, ratio_cap)
