"""Methods that learn from stored answers instead of sampling new ones: SFT, DPO, reward models."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from rltrain.config.base import Section

Method = Literal["online", "sft", "dpo", "reward_model"]


class SelectConfig(Section):
    """Which of a run's rollouts are learned from; read where `algo.data` is `run:…`."""

    min_margin: NonNegativeFloat = 0.0
    """Pairs: least difference of rewards. With 0, an answer that passed more gates is also
    preferred to one of the same reward."""
    min_reward: float = Field(default=1.0, ge=0, le=1)
    """SFT: least reward of an answer that is imitated."""
    max_per_group: PositiveInt = 4
    """Pairs from one group, drawn at random; for SFT, answers of the largest reward."""
    flagged: bool = False
    """Whether an answer that a detector flagged may be the preferred or the imitated one."""
    max_version: NonNegativeInt | None = None
    """Only rollouts sampled by policy versions up to this one; None takes all."""


class OfflineFields(Section):
    """The part of `algo` that offline methods read. TRL does the training."""

    method: Method = "online"
    """`online` samples its own rollouts; the others learn from `data` through TRL's trainers."""
    data: str | None = None
    """A JSON-lines file as `rltrain pairs` writes it, or `run:PATH` to select from a run."""
    batch_size: PositiveInt = 32
    """Pairs (SFT: answers) per optimizer step, whatever fits at once."""
    loss_type: str | tuple[str, ...] = "sigmoid"
    """DPO: TRL's `loss_type`, such as sigmoid, ipo, hinge, robust or apo_zero; several are summed
    by `trl.loss_weights`."""
    beta: PositiveFloat = 0.1
    """DPO: how strongly the policy is held to the one it starts from."""
    trl: dict[str, Any] = {}
    """Further arguments of TRL's SFTConfig, DPOConfig or RewardConfig, passed on as they are:
    `+algo.trl.label_smoothing=0.1`."""
    select: SelectConfig = SelectConfig()

    @property
    def offline(self) -> bool:
        return self.method != "online"

    @model_validator(mode="after")
    def _fits_method(self) -> Self:
        """A key that the method does not read is a mistake, never ignored."""
        shared = {"data", "batch_size", "trl", "select"}
        reads = {"sft": shared, "reward_model": shared, "dpo": {*shared, "loss_type", "beta"}}
        own = set(OfflineFields.model_fields) - {"method"}
        read = reads.get(self.method, set(type(self).model_fields) - own)
        for name, field in type(self).model_fields.items():
            given = getattr(self, name) != field.get_default(call_default_factory=True)
            if given and name not in {*read, "method"}:
                raise ValueError(
                    f"algo.{name} is not read by algo.method={self.method}; leave it out, or "
                    "choose the algo=… that it belongs to"
                )
        if self.offline and not self.data:
            raise ValueError(
                f"algo.method={self.method} needs algo.data: a file of `rltrain pairs`, or run:PATH"
            )
        return self
