"""Dynamic loss scaling: gradients below 6e-8 would vanish in fp16, those above 65504 overflow.

    loss x scale -> backward -> gradients / scale -> finite? step : skip, and halve the scale

The scale is a plain number and the same on every rank, because all ranks see the same gradient
norm. It may go below 1: a residual stream can overflow without any scaling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rltrain.config.precision import ScaleConfig

LARGEST = 2.0**24
"""Above it nothing is gained: the smallest fp16 number is 2^-24."""


class LossScaler:
    """The scale, and when it changes. Without a config it is 1 and nothing is touched."""

    def __init__(self, config: ScaleConfig | None) -> None:
        self.config = config
        self.value = 1.0 if config is None else config.init
        self.quiet = 0
        """Updates without overflow since the scale last changed."""
        self.overflows = 0
        """Updates skipped since training began."""

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to call `backward` on."""
        return loss if self.config is None else loss * self.value

    @torch.no_grad()
    def unscale(self, parameters: Iterable[Tensor]) -> None:
        """Divide the gradients by the scale, in place."""
        grads = [p.grad for p in parameters if p.grad is not None]
        if self.config is not None and grads:
            torch._foreach_mul_(grads, 1.0 / self.value)

    def update(self, *, finite: bool) -> bool:
        """Take note of an update. Returns False if it overflowed at the floor: no scale helps."""
        if self.config is None:
            return True
        if finite:
            self.quiet += 1
            if self.quiet >= self.config.growth_interval:
                self.value, self.quiet = min(self.value * 2, LARGEST), 0
            return True
        possible = self.value > self.config.floor
        self.value = max(self.value * self.config.backoff, self.config.floor)
        self.quiet, self.overflows = 0, self.overflows + 1
        return possible

    def state_dict(self) -> dict[str, Any]:
        """Empty without a config."""
        if self.config is None:
            return {}
        return {"scale": self.value, "quiet": self.quiet, "overflows": self.overflows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`. A state without a scale leaves this one as it is."""
        if self.config is not None and "scale" in state:
            self.value = float(state["scale"])
            # `_growth_tracker`: checkpoints of torch's own scaler, which older runs wrote
            self.quiet = int(state.get("quiet", state.get("_growth_tracker", 0)))
            self.overflows = int(state.get("overflows", 0))
