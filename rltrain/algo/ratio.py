"""Probability ratios between policies, per token and per sequence, in safe arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

LOG_RATIO_CLAMP = 20.0
"""Log-ratios are clamped to +-this before exp, so that one token cannot overflow a batch."""


def log_ratio(new_N: Tensor, old_N: Tensor) -> Tensor:
    """log(new / old) per token [N], clamped to +-LOG_RATIO_CLAMP nats."""
    return (new_N - old_N).clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP)


def sequence_sum(values_N: Tensor, seq_N: Tensor, sequences: int) -> Tensor:
    """Sum of a per-token quantity over each sequence: [N] -> [S]."""
    out = torch.zeros(sequences, dtype=values_N.dtype, device=values_N.device)
    return out.index_add(0, seq_N, values_N)


def sequence_mean(values_N: Tensor, seq_N: Tensor, sequences: int) -> Tensor:
    """Mean of a per-token quantity over each sequence: [N] -> [S]; 0 for an empty one."""
    count_S = sequence_sum(torch.ones_like(values_N), seq_N, sequences)
    return sequence_sum(values_N, seq_N, sequences) / count_S.clamp(min=1)
