"""The oracle: one torch operation after another, derivatives by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from rltrain_kernels.policy_loss.terms import LOG_RATIO_CLAMP, LossTerms, PolicyLoss, Tokens


def _log_ratio(left: Tensor, right: Tensor) -> Tensor:
    return (left - right).clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP)


def policy_loss_reference(batch: Tokens, spec: PolicyLoss) -> LossTerms:
    """The formula of `PolicyLoss`, line by line."""
    ratio = _log_ratio(batch.new, batch.old).exp()
    if spec.kind == "cispo":
        weight = ratio.detach().clamp(max=spec.clip_high)
        loss = -weight * batch.advantages * batch.new
        clipped = ratio.detach() > spec.clip_high
    else:
        plain = -ratio * batch.advantages
        bounded = -ratio.clamp(1 - spec.clip_low, 1 + spec.clip_high) * batch.advantages
        loss, clipped = torch.maximum(plain, bounded), bounded > plain
    correction = torch.ones_like(batch.old)
    if spec.tis_cap:
        correction = _log_ratio(batch.old, batch.behaviour).exp().clamp(max=spec.tis_cap)
    loss = loss * correction
    kl = torch.zeros_like(batch.old)
    if batch.reference is not None:
        x = _log_ratio(batch.reference, batch.new)
        loss = loss + spec.kl_coef * (x.exp() - 1 - x)
        x = _log_ratio(batch.reference, batch.trainer)
        kl = x.exp() - 1 - x
    total = (loss * batch.weights).sum()
    if spec.entropy_coef:
        total = total - spec.entropy_coef * batch.entropy.sum() / max(spec.tokens, 1)
    clipped = clipped.to(batch.old.dtype)
    gap = _log_ratio(batch.trainer, batch.behaviour)
    rho = gap.exp()
    columns = (
        batch.entropy.detach(), ratio.detach(), clipped,
        correction, correction**2, (correction == 0).to(gap.dtype),
        gap.abs(), -gap, gap**2 / 2, rho - 1 - gap, rho, rho**2, kl,
    )  # fmt: skip
    return LossTerms(total, clipped, correction, torch.stack(columns).sum(1))
