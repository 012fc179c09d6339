"""REINFORCE: no ratio, no clipping."""

from __future__ import annotations

import torch

from rltrain.algo.losses.base import LossOutput
from rltrain.algo.scored import Scored


def loss(scored: Scored) -> LossOutput:
    """-A log pi

    One pass per batch only: nothing holds the policy back. GPG (arXiv 2504.02546) is this loss
    with advantages of its own scale; REINFORCE++ (arXiv 2501.03262) is `ppo_clip` with whitened
    ones. With `correction=sequence_tis` it is PG-Seq-IS (arXiv 2510.26788).

    Paper: REINFORCE, doi 10.1007/BF00992696
    """
    return LossOutput(-scored.advantages * scored.new, torch.zeros_like(scored.new))
