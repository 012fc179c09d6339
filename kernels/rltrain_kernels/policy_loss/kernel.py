"""The Triton kernel: a block of tokens is read once; all that the step needs is written."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _log_ratio(left, right):
    return tl.minimum(tl.maximum(left - right, -20.0), 20.0)


@triton.jit
def _policy_term(new, old, advantage, clip_low, clip_high, CISPO: tl.constexpr):
    """The loss before correction, its derivative by `new`, whether it is clipped, the ratio."""
    ratio = tl.exp(_log_ratio(new, old))
    if CISPO:
        slope = -tl.minimum(ratio, clip_high) * advantage
        loss = slope * new
        clipped = tl.where(ratio > clip_high, 1.0, 0.0)
    else:
        plain = -ratio * advantage
        bounded = -tl.minimum(tl.maximum(ratio, 1 - clip_low), 1 + clip_high) * advantage
        loss = tl.maximum(plain, bounded)
        clipped = tl.where(bounded > plain, 1.0, 0.0)
        flat = (bounded > plain) | (tl.abs(new - old) > 20.0)
        slope = tl.where(flat, 0.0, plain)
    return loss, slope, clipped, ratio


@triton.jit
def _keep_sums(sums, one, entropy, ratio, clipped, correction, trainer, behaviour, kl):
    """The statistics of a block, in the order of `terms.STATISTICS`, after the loss."""
    gap = _log_ratio(trainer, behaviour)
    rho = tl.exp(gap)
    tl.store(sums + 1, tl.sum(one * entropy))
    tl.store(sums + 2, tl.sum(one * ratio))
    tl.store(sums + 3, tl.sum(one * clipped))
    tl.store(sums + 4, tl.sum(one * correction))
    tl.store(sums + 5, tl.sum(one * correction * correction))
    tl.store(sums + 6, tl.sum(one * tl.where(correction == 0, 1.0, 0.0)))
    tl.store(sums + 7, tl.sum(one * tl.abs(gap)))
    tl.store(sums + 8, tl.sum(one * -gap))
    tl.store(sums + 9, tl.sum(one * gap * gap / 2))
    tl.store(sums + 10, tl.sum(one * (rho - 1 - gap)))
    tl.store(sums + 11, tl.sum(one * rho))
    tl.store(sums + 12, tl.sum(one * rho * rho))
    tl.store(sums + 13, tl.sum(one * kl))


@triton.jit
def policy_loss_kernel(
    new_in, old_in, trainer_in, behaviour_in, advantages_in, weights_in, entropy_in, reference_in,
    grad_out, clipped_out, correction_out, sums_out, N,
    clip_low, clip_high, tis_cap, kl_coef, entropy_share,
    CISPO: tl.constexpr, TIS: tl.constexpr, REFERENCE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block. `sums_out` [blocks, 16]: the loss, then the statistics."""
    block = tl.program_id(0)
    at = block * BLOCK + tl.arange(0, BLOCK)
    live = at < N
    new = tl.load(new_in + at, mask=live, other=0.0)
    old = tl.load(old_in + at, mask=live, other=0.0)
    trainer = tl.load(trainer_in + at, mask=live, other=0.0)
    behaviour = tl.load(behaviour_in + at, mask=live, other=0.0)
    advantage = tl.load(advantages_in + at, mask=live, other=0.0)
    weight = tl.load(weights_in + at, mask=live, other=0.0)
    entropy = tl.load(entropy_in + at, mask=live, other=0.0)
    loss, slope, clipped, ratio = _policy_term(new, old, advantage, clip_low, clip_high, CISPO)
    correction = tl.full((BLOCK,), 1.0, tl.float32)
    if TIS:
        correction = tl.minimum(tl.exp(_log_ratio(old, behaviour)), tis_cap)
    loss = loss * correction
    slope = slope * correction
    kl = tl.zeros((BLOCK,), tl.float32)
    if REFERENCE:
        reference = tl.load(reference_in + at, mask=live, other=0.0)
        x = _log_ratio(reference, new)
        grown = tl.exp(x)
        loss += kl_coef * (grown - 1 - x)
        slope += tl.where(tl.abs(reference - new) > 20.0, 0.0, kl_coef * (1 - grown))
        x = _log_ratio(reference, trainer)
        kl = tl.exp(x) - 1 - x
    tl.store(grad_out + at, slope * weight, mask=live)
    tl.store(clipped_out + at, clipped, mask=live)
    tl.store(correction_out + at, correction, mask=live)
    one = tl.where(live, 1.0, 0.0)
    sums = sums_out + block * 16
    tl.store(sums, tl.sum(one * (loss * weight - entropy_share * entropy)))
    _keep_sums(sums, one, entropy, ratio, clipped, correction, trainer, behaviour, kl)
