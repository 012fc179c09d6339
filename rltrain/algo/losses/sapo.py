"""SAPO: a soft gate in the place of the clip."""

from __future__ import annotations

import torch

from rltrain.algo.losses.base import LossOutput
from rltrain.algo.ratio import ratio
from rltrain.algo.scored import Scored


def loss(scored: Scored, *, tau_pos: float = 1.0, tau_neg: float = 1.05) -> LossOutput:
    """-(4 / tau) sigmoid(tau (r - 1)) A, r = pi / pi_old, tau by the sign of A

    On policy its gradient is that of -r A; it fades smoothly as r leaves 1, faster for a larger
    tau. Nothing is ever clipped. The paper averages per sequence (`sequence_mean`).

    Paper: SAPO, arXiv 2511.20347
    """
    positive_N = scored.advantages > 0
    tau_N = torch.full_like(scored.new, tau_neg).masked_fill(positive_N, tau_pos)
    gate_N = torch.sigmoid(tau_N * (ratio(scored.new, scored.old) - 1)) * 4 / tau_N
    return LossOutput(-gate_N * scored.advantages, torch.zeros_like(gate_N))
