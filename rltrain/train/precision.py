"""Precision as one choice for the learner and the engine.

fp32 computes as stored. bf16 and fp16 compute under autocast with parameters, and so gradients,
their reduction and the optimizer, in fp32; fp16 adds dynamic loss scaling, because gradients below
6e-8 would vanish (Precision-RL, arXiv 2510.26788).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from rltrain.config.precision import PrecisionConfig
from rltrain.errors import RltrainError, UserError
from rltrain.train.overflow import BackwardOrder, Overflow
from rltrain.train.scaling import LossScaler

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast and loss scaling for one model."""

    def __init__(
        self,
        config: PrecisionConfig,
        device: torch.device,
        named: Iterable[tuple[str, Tensor]] = (),
    ) -> None:
        """named: the parameters, by the names that an overflow is told with."""
        self.config = config
        self.dtype = DTYPES[config.compute]
        self.device = device
        scaled = config.compute == "fp16"
        self.scaler = LossScaler(config.scale if scaled else None)
        self._order = BackwardOrder(named) if scaled else None
        self.tell: Callable[[Overflow], None] = lambda overflow: None
        """Called with every overflow of fp16, before the scale goes down."""

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled."""
        return self.scaler.config is not None

    def compute(self) -> AbstractContextManager[object]:
        """Context for forward passes."""
        if self.config.compute == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def update(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], max_norm: float
    ) -> float:
        """Unscale, clip and take the optimizer step, then clear the gradients. Returns the norm
        before clipping; if it is not finite, weights and optimizer stay as they are (and fp16
        lowers its loss scale).

        Raises `RltrainError`, which names the layer, for an overflow at the scale's floor."""
        parameters = list(parameters)
        self.scaler.unscale(parameters)
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        finite = bool(torch.isfinite(norm))
        # Looked for before clipping, which would turn every gradient into a NaN.
        found = None if finite or self._order is None else self._order.find(self.scaler.value)
        if found is not None:
            self.tell(found)
        if finite:
            clip_grads_with_norm_(parameters, max_norm, norm)
            optimizer.step()
        possible = self.scaler.update(finite=finite)
        optimizer.zero_grad(set_to_none=True)
        if not possible:
            where = found.first if found else "the model"
            raise RltrainError(
                f"gradients are not finite even at precision.scale.floor={self.scaler.value:g}, "
                f"first that of {where}; continue with precision=bf16 or precision=fp32"
            )
        return float(norm)

    def metrics(self) -> dict[str, float]:
        """The loss scale and the updates skipped for it, since training began; none without."""
        if not self.scales:
            return {}
        return {
            "precision/loss_scale": self.scaler.value,
            "precision/overflows": float(self.scaler.overflows),
        }


class Fp32Head(nn.Linear):
    """An output head that multiplies in fp32 within autocast, with its weights rounded to what
    the engine holds. The rounding's gradient is that of the identity."""

    held: torch.dtype

    def forward(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            rounding = self.weight.detach().to(self.held).float() - self.weight.detach()
            return F.linear(hidden.float(), self.weight + rounding, self.bias)


def set_head(model: Any, config: PrecisionConfig) -> None:
    """Have a transformers model's output head compute as `precision.head` says, in place.

    Raises `UserError` for a head that is no plain linear layer."""
    if config.head == "compute" or config.compute == "fp32":
        return
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise UserError(
            f"precision.head=fp32 needs a linear output head, this model has {type(head).__name__}"
        )
    head.__class__ = Fp32Head
    setattr(head, "held", DTYPES[config.compute])  # noqa: B010 - mypy takes it for a submodule
