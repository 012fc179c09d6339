"""Probability ratios between policies, per token and per sequence, in safe arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

LOG_RATIO_CLAMP = 20.0
"""Log-ratios are clamped to +-this before exp, so that one token cannot overflow a batch."""


def log_ratio(new_N: Tensor, old_N: Tensor) -> Tensor:
    """log(new / old) per token [N], clamped to +-LOG_RATIO_CLAMP nats."""
    return (new_N - old_N).clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP)


def ratio(new_N: Tensor, old_N: Tensor) -> Tensor:
    """new / old per token [N]."""
    return log_ratio(new_N, old_N).exp()


def sequence_ratio(new_N: Tensor, old_N: Tensor, seq_N: Tensor, sequences: int) -> Tensor:
    """prod_t new_t / old_t over each sequence [S], its logarithm clamped too."""
    total_S = sequence_sum(log_ratio(new_N, old_N), seq_N, sequences)
    return total_S.clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP).exp()


def sequence_sum(values_N: Tensor, seq_N: Tensor, sequences: int) -> Tensor:
    """Sum of a per-token quantity over each sequence: [N] -> [S]."""
    out = torch.zeros(sequences, dtype=values_N.dtype, device=values_N.device)
    return out.index_add(0, seq_N, values_N)


def sequence_mean(values_N: Tensor, seq_N: Tensor, sequences: int) -> Tensor:
    """Mean of a per-token quantity over each sequence: [N] -> [S]; 0 for an empty one."""
    count_S = sequence_sum(torch.ones_like(values_N), seq_N, sequences)
    return sequence_sum(values_N, seq_N, sequences) / count_S.clamp(min=1)
