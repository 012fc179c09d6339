"""Forward computes the derivative of every token too; backward only multiplies it by the loss
scale. So the pass over the tokens happens once, and the derivative is scaled in fp32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rltrain_kernels.available import check_triton, triton_runs_on
from rltrain_kernels.policy_loss.reference import policy_loss_reference
from rltrain_kernels.policy_loss.terms import STATISTICS, LossTerms, PolicyLoss, Tokens

BLOCK = 1024
ROW = 16
"""Floats per block of sums; the loss and 13 statistics are used."""


class _PolicyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, new: Tensor, entropy: Tensor, rest: Tokens, spec: PolicyLoss
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from rltrain_kernels.policy_loss.kernel import policy_loss_kernel

        count = len(new)
        blocks = max(1, -(-count // BLOCK))
        columns = [c.detach().float().contiguous() for c in (new, *rest[1:6], entropy)]
        slope, clipped, correction = torch.empty(3, count, device=new.device).unbind()
        sums = torch.zeros(blocks, ROW, device=new.device)
        share = spec.entropy_coef / max(spec.tokens, 1)
        reference = rest.reference
        policy_loss_kernel[(blocks,)](
            *columns,
            columns[0] if reference is None else reference.detach().float().contiguous(),
            slope,
            clipped,
            correction,
            sums,
            count,
            spec.clip_low,
            spec.clip_high,
            spec.tis_cap,
            spec.kl_coef,
            share,
            CISPO=spec.kind == "cispo",
            TIS=spec.tis_cap > 0,
            REFERENCE=reference is not None,
            BLOCK=BLOCK,
        )
        ctx.save_for_backward(slope)
        ctx.share, ctx.kept = share, (new.dtype, entropy.dtype)
        total = sums.sum(0)
        found = total[1 : 1 + len(STATISTICS)]
        ctx.mark_non_differentiable(clipped, correction, found)
        return total[0], clipped, correction, found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        of_new, of_entropy = ctx.kept
        entropy = None
        if ctx.needs_input_grad[1]:
            entropy = (-ctx.share * upstream).expand_as(slope).to(of_entropy)
        return (slope * upstream).to(of_new), entropy, None, None


def policy_loss(batch: Tokens, spec: PolicyLoss, *, backend: str = "auto") -> LossTerms:
    """A micro-batch's loss and statistics.

    Args:
        batch: fp32 columns [N]. spec: which loss, with its numbers.
        backend: `triton`, `torch` (the reference), or `auto`: Triton where it can run.

    Raises `ValueError` for a backend that cannot run here.
    """
    device = batch.new.device
    if backend == "triton":
        check_triton(device)
    elif backend == "auto":
        backend = "triton" if device.type == "cuda" and triton_runs_on(device) else "torch"
    elif backend != "torch":
        raise ValueError(f"backend is auto, torch or triton, not {backend!r}")
    if backend == "torch":
        return policy_loss_reference(batch, spec)
    rest = batch._replace(new=batch.new.detach(), entropy=batch.entropy.detach())
    return LossTerms(*_PolicyLoss.apply(batch.new, batch.entropy, rest, spec))  # type: ignore[no-untyped-call]
