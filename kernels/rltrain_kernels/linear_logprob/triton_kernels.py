"""The Triton kernels: a tile of logits in registers, folded (forward) or differentiated (backward).

Both compute a tile with the same code and the same block of H, so that the logits of the two passes
are the same bits. A program's rows do not depend on how many others there are: neither do results.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _logits_tile(
    hidden, weight, bias, scale_M, row0, col0, N, V, H, stride_h, stride_w,
    HAS_BIAS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    TMA: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """y = (h W^T + b) scale of rows row0.. and columns col0.., fp32 [BLOCK_M, BLOCK_N]."""
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    cols = col0 + tl.arange(0, BLOCK_N)
    if TMA:
        for k in range(0, H, BLOCK_K):
            a = hidden.load([row0, k])
            b = weight.load([col0, k])
            if WIDEN:  # the interpreter multiplies no bf16
                a, b = a.to(tl.float32), b.to(tl.float32)
            acc = tl.dot(a, tl.trans(b), acc, input_precision="ieee")
    else:
        rows = row0 + tl.arange(0, BLOCK_M)
        ks = tl.arange(0, BLOCK_K)
        # out of range wraps around: such rows and columns are not stored, and need no mask here
        at_a = hidden + (rows % N).to(tl.int64)[:, None] * stride_h + ks[None, :]
        at_b = weight + (cols % V).to(tl.int64)[None, :] * stride_w + ks[:, None]
        for k in range(0, H, BLOCK_K):
            a = tl.load(at_a + k, mask=ks[None, :] < H - k, other=0.0)
            b = tl.load(at_b + k, mask=ks[:, None] < H - k, other=0.0)
            if WIDEN:
                a, b = a.to(tl.float32), b.to(tl.float32)
            acc = tl.dot(a, b, acc, input_precision="ieee")
    if HAS_BIAS:
        acc += tl.load(bias + cols, mask=cols < V, other=0.0).to(tl.float32)[None, :]
    return acc * scale_M[:, None]


@triton.jit
def _place(pid, N, BLOCK_M: tl.constexpr, GROUP: tl.constexpr, columns):
    """Blocks of rows in groups, so that programs of one time share rows of the head in L2."""
    blocks = tl.cdiv(N, BLOCK_M)
    group = pid // (GROUP * columns)
    size = tl.minimum(blocks - group * GROUP, GROUP)
    within = pid % (GROUP * columns)
    return group * GROUP + within % size, within // size


@triton.jit
def fold_kernel(
    hidden, weight, bias, scale, target, top_out, total_out, spread_out, target_out, first, N, V,
    H, stride_h, stride_w, HAS_BIAS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr, GROUP: tl.constexpr, TILES: tl.constexpr, TMA: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """One block of rows by TILES tiles of the vocabulary: their statistics, `_out` [splits, N]."""
    splits = tl.cdiv(V, BLOCK_N * TILES)
    block, split = _place(tl.program_id(0), N, BLOCK_M, GROUP, splits)
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    live = rows < N
    scale_M = tl.load(scale + rows, mask=live, other=0.0)
    target_M = tl.load(target + rows, mask=live, other=-1) - first
    top = tl.full((BLOCK_M,), -1e30, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    spread = tl.zeros((BLOCK_M,), tl.float32)
    for tile in range(0, TILES):
        col0 = (split * TILES + tile) * BLOCK_N
        y = _logits_tile(
            hidden, weight, bias, scale_M, block * BLOCK_M, col0, N, V, H, stride_h, stride_w,
            HAS_BIAS, BLOCK_M, BLOCK_N, BLOCK_K, TMA, WIDEN,
        )  # fmt: skip
        inner = tl.arange(0, BLOCK_N)
        y = tl.where((col0 + inner < V)[None, :], y, -1e30)
        local = target_M - col0
        mine = (local >= 0) & (local < BLOCK_N) & (target_M < V) & live
        if tl.max(mine.to(tl.int32), 0) > 0:  # few tiles hold a target
            at = tl.sum(tl.where(inner[None, :] == local[:, None], y, 0.0), 1)
            tl.store(target_out + rows, at, mask=mine)
        higher = tl.maximum(top, tl.max(y, 1))
        lower = top - higher
        y = y - higher[:, None]
        part = tl.exp2(y)
        weight_M = tl.exp2(lower)
        spread = weight_M * (spread + total * lower) + tl.sum(part * y, 1)
        total = weight_M * total + tl.sum(part, 1)
        top = higher
    out = split.to(tl.int64) * N + rows
    tl.store(top_out + out, top, mask=live)
    tl.store(total_out + out, total, mask=live)
    tl.store(spread_out + out, spread, mask=live)


@triton.jit
def dlogits_kernel(
    hidden, weight, bias, scale, target, log_total, level, slope, hit, out, first, N, V, H,
    stride_h, stride_w, stride_out, HAS_BIAS: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr, TMA: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """dz = p (level - slope log2 p) + hit at the target, of one tile, rounded once into `out`."""
    block, column = _place(tl.program_id(0), N, BLOCK_M, GROUP, tl.cdiv(V, BLOCK_N))
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    live = rows < N
    scale_M = tl.load(scale + rows, mask=live, other=0.0)
    col0 = column * BLOCK_N
    y = _logits_tile(
        hidden, weight, bias, scale_M, block * BLOCK_M, col0, N, V, H, stride_h, stride_w,
        HAS_BIAS, BLOCK_M, BLOCK_N, BLOCK_K, TMA, WIDEN,
    )  # fmt: skip
    y -= tl.load(log_total + rows, mask=live, other=0.0)[:, None]
    level_M = tl.load(level + rows, mask=live, other=0.0)
    slope_M = tl.load(slope + rows, mask=live, other=0.0)
    dz = tl.exp2(y) * (level_M[:, None] - slope_M[:, None] * y)
    local = tl.load(target + rows, mask=live, other=-1) - first - col0
    hit_M = tl.load(hit + rows, mask=live, other=0.0)
    inner = tl.arange(0, BLOCK_N)
    dz += tl.where(inner[None, :] == local[:, None], hit_M[:, None], 0.0)
    at = out + rows.to(tl.int64)[:, None] * stride_out + (col0 + inner)[None, :]
    inside = live[:, None] & (col0 + inner < V)[None, :]
    tl.store(at, dz.to(out.dtype.element_ty), mask=inside)
