"""Launches the Triton kernels; takes the place of `chunked.fold` and `chunked.dlogits`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from rltrain_kernels.available import INTERPRETED
from rltrain_kernels.linear_logprob.chunked import HALF, Rows, Upstream
from rltrain_kernels.linear_logprob.stats import Stats, join


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How the kernels cut their work. Results depend on `block_k` alone, by rounding."""

    block_m: int
    block_n: int
    block_k: int
    group: int = 8
    tiles: int = 4
    """Tiles of the vocabulary that one forward program folds."""
    tma: bool = False
    """Tiles are fetched by Hopper's copy engine."""
    warps: int = 8
    stages: int = 3


HOPPER = Tiling(block_m=256, block_n=128, block_k=64, tiles=8, tma=True)
"""Of those that fill an SM, the one whose kernels spill no registers; 128 divides 151,936."""
SMALL = Tiling(block_m=128, block_n=128, block_k=32, group=8, warps=8, stages=3)
"""For GPUs with about 100 KB of shared memory a block, and for fp32 inputs."""
TOY = Tiling(block_m=16, block_n=32, block_k=16, group=2, tiles=2)
"""For the interpreter: more than one block of everything at toy sizes."""

override: Tiling | None = None
"""Set by benchmarks and tests, for half precision (fp32 tiles would not fit)."""


@lru_cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


def tiling_for(hidden: Tensor, weight: Tensor) -> Tiling:
    """The tiling for these operands, without TMA where it cannot read their rows."""
    if override is not None and (hidden.dtype in HALF or INTERPRETED):
        chosen = override
    elif INTERPRETED and hidden.device.type != "cuda":
        chosen = TOY
    else:
        index = hidden.device.index or 0
        chosen = HOPPER if hidden.dtype in HALF and _capability(index)[0] == 9 else SMALL
    if chosen.tma and not all(_tma_reads(operand) for operand in (hidden, weight)):
        return replace(chosen, tma=False)
    return chosen


def _tma_reads(operand: Tensor) -> bool:
    whole = operand.stride(1) == 1 and operand.data_ptr() % 16 == 0
    return whole and operand.stride(0) * operand.element_size() % 16 == 0


def _operands(hidden: Tensor, weight: Tensor, tiling: Tiling) -> tuple[Any, Any]:
    if not tiling.tma:
        return hidden, weight
    from triton.tools.tensor_descriptor import TensorDescriptor

    return (
        TensorDescriptor.from_tensor(hidden, [tiling.block_m, tiling.block_k]),
        TensorDescriptor.from_tensor(weight, [tiling.block_n, tiling.block_k]),
    )


def _meta(tiling: Tiling, dtype: torch.dtype, bias: Tensor | None) -> dict[str, Any]:
    values = asdict(tiling)
    return {
        "HAS_BIAS": bias is not None,
        "BLOCK_M": values["block_m"],
        "BLOCK_N": values["block_n"],
        "BLOCK_K": values["block_k"],
        "GROUP": values["group"],
        "TMA": values["tma"],
        "WIDEN": INTERPRETED and dtype == torch.bfloat16,
        "num_warps": values["warps"],
        "num_stages": values["stages"],
    }


def fold(
    stats: Stats, hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: Rows, first: int
) -> None:
    """As `chunked.fold`; logits stay in registers, the parts of rows are joined in torch."""
    from rltrain_kernels.linear_logprob.triton_kernels import fold_kernel

    tiling = tiling_for(hidden, weight)
    (tokens, width), vocabulary = hidden.shape, len(weight)
    splits = -(-vocabulary // (tiling.block_n * tiling.tiles))
    parts = torch.empty(3, splits, tokens, dtype=torch.float32, device=hidden.device)
    at = torch.zeros(tokens, dtype=torch.float32, device=hidden.device)
    grid = (-(-tokens // tiling.block_m) * splits,)
    fold_kernel[grid](
        *_operands(hidden, weight, tiling),
        weight if bias is None else bias,
        rows.scale,
        rows.target,
        *parts.unbind(),
        at,
        first,
        tokens,
        vocabulary,
        width,
        hidden.stride(0),
        weight.stride(0),
        TILES=tiling.tiles,
        **_meta(tiling, hidden.dtype, bias),
    )
    fresh = join(parts[0], parts[1], parts[2], at[None])
    joined = join(*(torch.stack(pair) for pair in zip(stats, fresh, strict=True)))
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
    """As `chunked.dlogits`."""
    from rltrain_kernels.linear_logprob.triton_kernels import dlogits_kernel

    tiling = tiling_for(hidden, weight)
    (tokens, width), vocabulary = hidden.shape, len(weight)
    grid = (-(-tokens // tiling.block_m) * -(-vocabulary // tiling.block_n),)
    dlogits_kernel[grid](
        *_operands(hidden, weight, tiling),
        weight if bias is None else bias,
        rows.scale,
        rows.target,
        *upstream,
        out,
        first,
        tokens,
        vocabulary,
        width,
        hidden.stride(0),
        weight.stride(0),
        out.stride(0),
        **_meta(tiling, hidden.dtype, bias),
    )
