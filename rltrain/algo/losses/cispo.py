"""CISPO: the importance weight is clipped, the gradient of log pi never is."""

from __future__ import annotations

from rltrain.algo.losses.base import LossOutput
from rltrain.algo.ratio import ratio
from rltrain.algo.scored import Scored


def loss(scored: Scored, *, clip_high: float = 5.0) -> LossOutput:
    """-sg(min(r, clip_high)) A log pi, r = pi / pi_old

    Every token keeps a gradient; `clipped` says where the weight was cut. Eq. 4; the default bound
    is ScaleRL's (arXiv 2510.13786). The paper averages over tokens (`token_mean`).

    Paper: CISPO (MiniMax-M1), arXiv 2506.13585
    """
    ratio_N = ratio(scored.new, scored.old).detach()
    loss_N = -ratio_N.clamp(max=clip_high) * scored.advantages * scored.new
    return LossOutput(loss_N, (ratio_N > clip_high).to(loss_N.dtype))
