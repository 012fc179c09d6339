"""What goes into the fused policy loss and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

LOG_RATIO_CLAMP = 20.0
"""Log-ratios are clamped to +-this before exp."""

STATISTICS = (
    "entropy",
    "ratio",
    "clipped",
    "correction",
    "correction_sq",
    "masked",
    "abs_gap",
    "k1",
    "k2",
    "k3",
    "rho",
    "rho_sq",
    "kl",
)
"""Order of `LossTerms.sums`. gap = trainer - behaviour; k1 = -gap, k2 = gap^2/2,
k3 = e^gap - 1 - gap, rho = e^gap; kl is k3 between trainer and reference, 0 without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """sum_t w_t (c_t l_t + kl_coef k3_t) - entropy_coef sum_t H_t / tokens

    r = pi / pi_old; c = min(pi_old / mu, tis_cap), without gradient, 1 where the cap is 0.
    """

    kind: Literal["cispo", "ppo_clip"]
    """cispo: l = -sg(min(r, clip_high)) A log pi; here `clip_high` bounds r itself.
    ppo_clip: l = -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    tis_cap: float = 0.0
    kl_coef: float = 0.0
    entropy_coef: float = 0.0
    tokens: int = 1
    """Of the whole step, over all micro-batches and ranks."""


class Tokens(NamedTuple):
    """All [N], fp32, log-probabilities in nats. Gradients flow to `new` and `entropy` alone."""

    new: Tensor
    old: Tensor
    trainer: Tensor
    behaviour: Tensor
    advantages: Tensor
    weights: Tensor
    """The aggregation's weight of each token."""
    entropy: Tensor
    reference: Tensor | None = None


class LossTerms(NamedTuple):
    """A micro-batch's part of the step."""

    loss: Tensor
    """Scalar, differentiable."""
    clipped: Tensor
    """[N], 1 where the loss removed the gradient (cispo: cut the weight)."""
    correction: Tensor
    """[N]."""
    sums: Tensor
    """[len(STATISTICS)], over the micro-batch's tokens, without gradient."""
