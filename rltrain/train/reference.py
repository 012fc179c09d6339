"""The reference of a KL term: the policy as it was when training began."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from rltrain.batch.packing import MicroBatch
from rltrain.train.logprobs import token_scores
from rltrain.train.precision import Precision


class Reference:
    """With LoRA it is the same model with its adapter switched off, and costs no memory; without,
    a frozen copy. Make it before training, and before weights of a checkpoint are loaded."""

    def __init__(self, model: Any) -> None:
        self._adapter_off = getattr(model, "disable_adapter", None)
        self._model = model
        if self._adapter_off is None:
            self._model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def logprobs(
        self, batches: Sequence[MicroBatch], temperature: float, precision: Precision
    ) -> list[Tensor]:
        """Log-probabilities [N] of each micro-batch's trained tokens, without dropout."""
        training = self._model.training
        self._model.eval()
        with self._adapter_off() if self._adapter_off else nullcontext(), precision.compute():
            scores = [token_scores(self._model, micro, temperature) for micro in batches]
        self._model.train(training)
        return [score.logprobs for score in scores]
