"""Entropy: paying for it, and training on the tokens where the policy decides something."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def bonus(entropy_N: Tensor, tokens: int) -> Tensor:
    """sum_t H_t / tokens of the step, times `entropy_coef`, taken off the loss

    Whatever the aggregation is: the mean entropy of the step's tokens. Scalar, with gradient.

    Paper: A3C, arXiv 1602.01783
    """
    return entropy_N.sum() / max(tokens, 1)


def high_entropy(entropy_N: Tensor, share: float) -> Tensor:
    """1 where H_t >= quantile(H, 1 - share), else 0

    The 80/20 rule: with `share` 0.2 the policy loss is that of the fifth of tokens with the highest
    entropy. The quantile is that of the micro-batch, so the result depends on how a step is
    split; the denominators still count every token.

    Paper: Beyond the 80/20 Rule, arXiv 2506.01939
    """
    if share >= 1 or not len(entropy_N):
        return torch.ones_like(entropy_N)
    entropy_N = entropy_N.detach()
    return (entropy_N >= torch.quantile(entropy_N, 1 - share)).to(entropy_N.dtype)


ENTROPY: dict[str, Callable[..., Tensor]] = {"entropy_coef": bonus, "top_entropy": high_entropy}
"""config key -> what it does."""
