"""The critic of PPO: a value model beside the policy."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from rltrain.config.base import Section


class CriticConfig(Section):
    """A copy of the policy's layers with a value head, and an optimizer of its own."""

    lr: PositiveFloat = 1e-5
    """Constant; betas, eps and weight decay are those of `train`."""
    epochs: PositiveInt = 1
    """Optimizer passes over each batch."""
    clip: NonNegativeFloat = 0.2
    """How far a value may move within one step before its gradient ends; 0 switches it off."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    """Discount per sampled token."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """0 trusts the critic, 1 the observed rewards."""
    whiten: bool = True
    """Scale the advantages of a step to mean 0 and standard deviation 1 over its tokens."""
    warmup_steps: NonNegativeInt = 0
    """First steps that train the critic only: until it knows something, it misleads the policy."""
    max_grad_norm: PositiveFloat = 1.0
