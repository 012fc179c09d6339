"""Precision as one choice for the learner and the engine.

fp32 computes as stored. bf16 and fp16 compute under autocast with parameters, and so the optimizer,
in fp32; fp16 adds dynamic loss scaling, because gradients below 6e-8 would vanish (Precision-RL,
arXiv 2510.26788).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast and loss scaling for one learner."""

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.dtype = DTYPES[name]
        self.device = device
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=name == "fp16", init_scale=2.0**16, growth_interval=400
        )

    def compute(self) -> AbstractContextManager[object]:
        """Context for forward passes."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def update(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor], max_norm: float
    ) -> float:
        """Unscale, clip and take the optimizer step, then clear the gradients. Returns the norm
        before clipping; if it is not finite, weights and optimizer stay as they are (and fp16
        lowers its loss scale)."""
        self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        if bool(torch.isfinite(norm)):
            self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return float(norm)
