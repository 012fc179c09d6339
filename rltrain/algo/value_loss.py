"""The critic's loss: squared error to the return, held back near the value before the update."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ValueLossOutput(NamedTuple):
    """Per-token results, both [N]."""

    loss: Tensor
    """To be minimised, before aggregation."""
    clipped: Tensor
    """1.0 where clipping removed the gradient, else 0.0; for the log."""


def value_loss(
    values_N: Tensor, old_N: Tensor, returns_N: Tensor, clip: float = 0.2
) -> ValueLossOutput:
    """0.5 max((v - R)^2, (clip(v, v_old - clip, v_old + clip) - R)^2), per token.

    A value that moved towards its return by more than `clip` gets no further gradient; one that
    moved away from it always has one. With `clip` 0 it is the plain 0.5 (v - R)^2.

    The paper (PPO, arXiv 1707.06347, eq. 9) has the plain square; the clipped form is that of the
    implementation in OpenAI baselines (ppo2), which verl follows.

    Args:
        values_N: of the critic that is trained, in units of reward; the only one with a gradient.
        old_N: of the critic before the update.
        returns_N: what is to be predicted, `algo.gae`'s second result.
    """
    plain_N = (values_N - returns_N) ** 2
    if clip == 0:
        return ValueLossOutput(0.5 * plain_N, torch.zeros_like(values_N))
    near_N = (old_N + (values_N - old_N).clamp(-clip, clip) - returns_N) ** 2
    return ValueLossOutput(
        0.5 * torch.maximum(plain_N, near_N), (near_N > plain_N).to(values_N.dtype)
    )
