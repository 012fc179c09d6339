"""What a step minimises: loss, correction, KL and entropy put together. Pure.

    sum_t weight_t (correction_t loss_t + kl_coef kl_t) - entropy_coef mean_t H_t

over all tokens of the step. `weight_t` is the aggregation's; the mean is over the step's tokens.
The KL term is not corrected: a sequence that the correction removes is still held to the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor

from rltrain.algo.corrections import Correction, combined
from rltrain.algo.entropy import bonus, high_entropy
from rltrain.algo.kl import KL, Kl, k3, penalty, to_go
from rltrain.algo.losses import LOSSES, Loss
from rltrain.algo.named import arguments, find
from rltrain.algo.proximal import PROXIMAL, Proximal, recompute
from rltrain.algo.scored import Scored
from rltrain.config.algo import AlgoConfig
from rltrain.errors import UserError


def _with_arguments(name: str, args: Mapping[str, float]) -> Loss:
    function = find("algo.loss", name, LOSSES)
    known = arguments(function)
    if unknown := set(args) - known:
        raise UserError(
            f"config algo.loss_args: {', '.join(sorted(unknown))} is no argument of {name} "
            f"({', '.join(sorted(known)) or 'it has none'})"
        )
    return partial(function, **args)


class Terms(NamedTuple):
    """One micro-batch's part of the step."""

    loss: Tensor
    """Scalar with gradient; the parts of all micro-batches and ranks add up to the step's loss."""
    clipped: Tensor
    """[N], 1 where the loss removed the gradient."""
    weight: Tensor
    """[N], the correction."""
    kl: Tensor | None
    """[N], k3 between the policy that began the step and the reference, in nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Pure functions with their arguments bound, and coefficients."""

    loss: Loss
    correction: Correction
    epochs: int
    temperature: float
    proximal: Proximal = recompute
    kl: Kl | None = None
    """None: no reference model."""
    kl_coef: float = 0.0
    kl_in_reward: bool = False
    entropy_coef: float = 0.0
    top_entropy: float = 1.0

    @staticmethod
    def from_config(algo: AlgoConfig, temperature: float) -> Objective:
        """Raises `UserError` for a name, or an argument of loss or correction, not known."""
        return Objective(
            loss=_with_arguments(algo.loss, algo.loss_args),
            correction=combined(algo.corrections, algo.correction_args),
            epochs=algo.epochs,
            temperature=temperature,
            proximal=find("algo.proximal", algo.proximal, PROXIMAL),
            kl=find("algo.kl.estimator", algo.kl.estimator, KL) if algo.kl.coef else None,
            kl_coef=algo.kl.coef,
            kl_in_reward=algo.kl.placement == "reward",
            entropy_coef=algo.entropy_coef,
            top_entropy=algo.top_entropy,
        )

    @property
    def moves_without_advantage(self) -> bool:
        """Whether a sequence with advantage 0 has a gradient all the same."""
        return self.kl is not None or self.entropy_coef != 0

    def with_penalty(self, scored: Scored) -> Scored:
        """KL as part of the reward: each token's advantage less what KL costs from there on.

        It comes after the group's baseline and scale. Inside, a group would subtract its mean KL
        from everybody, and dividing by the spread of its rewards would give every group a
        coefficient of its own, the largest where rewards differ least."""
        if self.kl is None or not self.kl_in_reward:
            return scored
        cost_N = to_go(penalty(self.kl, scored), scored.seq, scored.sequences)
        return scored._replace(advantages=scored.advantages - self.kl_coef * cost_N)

    def __call__(self, scored: Scored, weights_N: Tensor, tokens: int) -> Terms:
        """Args:
        weights_N: the aggregation's weight of each token, without gradient.
        tokens: trained tokens of the whole step over all ranks.
        """
        scored = self.with_penalty(scored)
        correction_N = self.correction(scored).detach()
        result = self.loss(scored)
        loss_N = result.loss * correction_N
        if self.top_entropy < 1:
            loss_N = loss_N * high_entropy(scored.entropy, self.top_entropy)
        if self.kl is not None and not self.kl_in_reward:
            loss_N = loss_N + self.kl_coef * self.kl(scored)
        total = (loss_N * weights_N).sum()
        if self.entropy_coef:
            total = total - self.entropy_coef * bonus(scored.entropy, tokens)
        measured_N = penalty(k3, scored) if self.kl is not None else None
        return Terms(total, result.clipped, correction_N, measured_N)
