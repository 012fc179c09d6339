"""REINFORCE: no ratio, no clipping."""

from __future__ import annotations

import torch
from torch import Tensor

from rltrain.algo.losses.base import LossOutput


def loss(
    new_N: Tensor, old_N: Tensor, advantages_N: Tensor, seq_N: Tensor, sequences: int
) -> LossOutput:
    """-A log pi (Williams 1992). One pass per batch only: nothing holds the policy back."""
    return LossOutput(-advantages_N * new_N, torch.zeros_like(new_N))
