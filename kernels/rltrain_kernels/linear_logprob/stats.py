"""What a softmax row is known by without its logits, and how two parts of a row are joined.

Logits are counted in bits: y = z log2(e) / T, so that kernels use exp2 alone.

    top    max y
    total  sum 2^(y - top)
    spread sum 2^(y - top) (y - top)         for the entropy
    target y of the target token, 0 in the parts that do not hold it

    log2 p[target] = target - top - log2 total
    H = (log2 total - spread / total) ln 2

Counted from the maximum, neither line subtracts large numbers where the policy is sure of itself.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

LN2 = math.log(2.0)
LOG2E = 1.0 / LN2
LOWEST = -1e30
"""Stands for -inf: its differences are finite, so that 0 times them is 0."""


class Stats(NamedTuple):
    """All [N], fp32 or fp64."""

    top: Tensor
    total: Tensor
    spread: Tensor
    target: Tensor

    @staticmethod
    def empty(tokens: int, like: Tensor, dtype: torch.dtype) -> Stats:
        """Of no logits at all."""
        zero = torch.zeros(3, tokens, dtype=dtype, device=like.device)
        top = torch.full((tokens,), LOWEST, dtype=dtype, device=like.device)
        return Stats(top, *zero.unbind())

    def log_total(self) -> Tensor:
        """log2 of the row's sum of 2^y."""
        return self.top + self.total.log2()

    def logprobs(self) -> Tensor:
        """log p[target] in nats."""
        return (self.target - self.top - self.total.log2()) * LN2

    def entropy(self) -> Tensor:
        """In nats; never negative by rounding."""
        return ((self.total.log2() - self.spread / self.total) * LN2).clamp(min=0)


def join(top: Tensor, total: Tensor, spread: Tensor, target: Tensor) -> Stats:
    """Parts of rows, stacked along the first dimension [P, N], as one."""
    highest = top.amax(0)
    lower = top - highest
    weight = lower.exp2()
    return Stats(
        highest,
        (weight * total).sum(0),
        (weight * (spread + total * lower)).sum(0),
        target.sum(0),
    )


def join_ranks(stats: Stats, group: Any) -> Stats:
    """The same over the ranks of a process group, each of which holds a part of the vocabulary."""
    highest = stats.top.clone()
    dist.all_reduce(highest, dist.ReduceOp.MAX, group=group)
    lower = stats.top - highest
    weight = lower.exp2()
    sums = torch.stack(
        [weight * stats.total, weight * (stats.spread + stats.total * lower), stats.target]
    )
    dist.all_reduce(sums, group=group)
    return Stats(highest, *sums.unbind())
