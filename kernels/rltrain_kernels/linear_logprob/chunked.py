"""Both passes over a chunk [tokens, vocabulary] in torch, for any device, and the products."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rltrain_kernels.linear_logprob.stats import Stats, join

HALF = (torch.float16, torch.bfloat16)


class Rows(NamedTuple):
    """Per token, all [N]: what turns products into logits, and upstream gradients into theirs."""

    scale: Tensor
    """log2(e) / temperature."""
    target: Tensor
    """int64, counted from this rank's first row of the head."""

    def part(self, where: slice) -> Rows:
        """Some of the tokens."""
        return Rows(self.scale[where], self.target[where])


class Upstream(NamedTuple):
    """Per token, all [N]: dz = p (level - slope log2 p) + hit at the target."""

    log_total: Tensor
    level: Tensor
    slope: Tensor
    hit: Tensor

    def part(self, where: slice) -> Upstream:
        """Some of the tokens."""
        return Upstream(*(column[where] for column in self))


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, summed and returned in fp32 for half inputs."""
    if left.dtype not in HALF:
        return left @ right
    if left.device.type == "cuda":
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def add_product(total: Tensor, left: Tensor, right: Tensor, *, fresh: bool, factor: float) -> None:
    """total (+)= factor left @ right, in place, without rounding the product to the inputs' dtype.

    fresh: what was in `total` is forgotten."""
    beta = 0.0 if fresh else 1.0
    if left.dtype in HALF and left.device.type == "cuda":
        torch.addmm(
            total, left, right, out_dtype=torch.float32, beta=beta, alpha=factor, out=total
        )
        return
    total.addmm_(left.to(total.dtype), right.to(total.dtype), beta=beta, alpha=factor)


def logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: Rows) -> Tensor:
    """y = (h W^T + b) log2(e) / T of a chunk, in the accumulation dtype."""
    raw = product(hidden, weight.T)
    if bias is not None:
        raw += bias.to(raw.dtype)
    return raw.mul_(rows.scale[:, None])


def fold(
    stats: Stats, hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: Rows, first: int
) -> None:
    """Add the vocabulary rows [first, first + len(weight)) to the statistics, in place."""
    y = logits(hidden, weight, bias, rows)
    local = rows.target - first
    inside = (local >= 0) & (local < len(weight))
    at = y.gather(1, local.clamp(0, len(weight) - 1)[:, None])[:, 0]
    top = y.amax(1)
    y -= top[:, None]
    part = y.exp2()
    total = part.sum(1)
    spread = part.mul_(y).sum(1)
    columns = (top, total, spread, torch.where(inside, at, torch.zeros_like(at)))
    joined = join(*(torch.stack(pair) for pair in zip(stats, columns, strict=True)))
    for old, new in zip(stats, joined, strict=True):
        old.copy_(new)


def dlogits(
    out: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Rows,
    upstream: Upstream,
    first: int,
) -> None:
    """The gradient of h W^T of a chunk, rounded once, into `out` [tokens, vocabulary]."""
    y = logits(hidden, weight, bias, rows).sub_(upstream.log_total[:, None])
    p = y.exp2()
    dz = y.mul_(-upstream.slope[:, None]).add_(upstream.level[:, None]).mul_(p)
    local = rows.target - first
    inside = (local >= 0) & (local < len(weight))
    hit = torch.where(inside, upstream.hit, torch.zeros_like(upstream.hit))
    dz.scatter_add_(1, local.clamp(0, len(weight) - 1)[:, None], hit[:, None])
    out.copy_(dz)
