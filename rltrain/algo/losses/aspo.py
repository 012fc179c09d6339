"""ASPO: good tokens that became unlikelier are pulled up harder, not softer."""

from __future__ import annotations

import torch

from rltrain.algo.losses.base import LossOutput, clipped_surrogate
from rltrain.algo.ratio import ratio
from rltrain.algo.scored import Scored


def loss(
    scored: Scored, *, clip_low: float = 0.2, clip_high: float = 0.2, weight_cap: float = 3.0
) -> LossOutput:
    """A > 0: -sg(min(1/r, weight_cap)) A log pi where r <= 1 + clip_high, else 0; A <= 0: ppo_clip

    The flipped ratio pi_old pi / sg(pi^2) has the value 1/r and the gradient 1/r grad log pi. The
    cap keeps the gradient ("soft dual clip"); the paper gives no number for it, 3 is that of
    dual-clip PPO. Aggregated over tokens as in DAPO.

    Paper: ASPO, arXiv 2510.06062
    """
    ratio_N = ratio(scored.new, scored.old)
    loss_N, flat_N = clipped_surrogate(ratio_N, scored.advantages, clip_low, clip_high)
    inside_N = ratio_N.detach() <= 1 + clip_high
    weight_N = (1 / ratio_N.detach()).clamp(max=weight_cap) * inside_N
    good_N = scored.advantages > 0
    return LossOutput(
        torch.where(good_N, -weight_N * scored.advantages * scored.new, loss_N),
        torch.where(good_N, (~inside_N).to(flat_N.dtype), flat_N),
    )
