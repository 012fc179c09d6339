"""One optimizer step of policy-gradient training: scores, correction, loss, gradients, update."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rltrain.algo.corrections import CORRECTIONS, Correction, mismatch_sums
from rltrain.algo.losses import LOSSES, Loss
from rltrain.algo.ratio import log_ratio
from rltrain.batch.packing import Batch, MicroBatch
from rltrain.config.algo import AlgoConfig, TrainConfig
from rltrain.train.logprobs import token_scores
from rltrain.train.precision import Precision
from rltrain.types import StepStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimised: pure functions with their arguments bound."""

    loss: Loss
    correction: Correction
    epochs: int
    temperature: float

    @staticmethod
    def from_config(algo: AlgoConfig, temperature: float) -> Objective:
        return Objective(
            loss=partial(LOSSES[algo.loss], **algo.loss_args),
            correction=partial(CORRECTIONS[algo.correction], **algo.correction_args),
            epochs=algo.epochs,
            temperature=temperature,
        )


def learning_rate(config: TrainConfig, max_steps: int) -> Callable[[int], float]:
    """Factor on the learning rate for the k-th optimizer step, 0-based: linear warm-up, then
    constant, linear or cosine decay to 0 at `max_steps`."""

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.decay == "constant":
            return 1.0
        done = (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps)
        if config.decay == "linear":
            return max(0.0, 1 - done)
        return 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi))))

    return factor


class PolicyLearner:
    """Owns the policy's parameters and the optimizer. One device; ranks are a wrapper's matter."""

    def __init__(
        self, model: Any, objective: Objective, config: TrainConfig, max_steps: int
    ) -> None:
        self.model = model
        self.objective = objective
        self.config = config
        self.device = next(model.parameters()).device
        self.precision = Precision(config.precision, self.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, learning_rate(config, max_steps * objective.epochs)
        )

    def step(self, batch: Batch) -> StepStats:
        """Take `epochs` optimizer steps on a batch. An empty batch changes nothing."""
        started = time.perf_counter()
        lr = float(self.schedule.get_last_lr()[0])
        batches = [_to(micro, self.device) for micro in batch.micro_batches]
        old: list[Tensor | None] = [None] * len(batches)
        totals: dict[str, Tensor] = {}
        norm = 0.0
        self.model.train()
        for epoch in range(self.objective.epochs if batches else 0):
            for i, micro in enumerate(batches):
                old[i] = self._accumulate(micro, old[i], totals if epoch == 0 else {})
            norm = self._update()
        return self._stats(batch, totals, norm, lr, time.perf_counter() - started)

    def _accumulate(
        self, micro: MicroBatch, old_N: Tensor | None, totals: dict[str, Tensor]
    ) -> Tensor:
        """Backward of one micro-batch. Returns pi_old, which the first epoch takes from itself."""
        with self.precision.compute():
            scores = token_scores(self.model, micro, self.objective.temperature)
        new_N = scores.logprobs
        old_N = new_N.detach() if old_N is None else old_N
        weight_N = self.objective.correction(old_N, micro.behaviour, micro.seq, micro.sequences)
        result = self.objective.loss(new_N, old_N, micro.advantages, micro.seq, micro.sequences)
        loss = (result.loss * weight_N.detach() * micro.weights).sum()
        torch.autograd.backward(self.precision.scaler.scale(loss))
        with torch.no_grad():
            sums = {
                "loss": loss,
                "policy/entropy": scores.entropy.sum(),
                "ratio/mean": log_ratio(new_N, old_N).exp().sum(),
                "ratio/clipped": result.clipped.sum(),
                "correction/weight": weight_N.sum(),
                "correction/masked": (weight_N == 0).float().sum(),
                "correction/weight_sq": (weight_N**2).sum(),
                **mismatch_sums(old_N, micro.behaviour),
            }
            for key, value in sums.items():
                before = totals.get(key, torch.zeros((), device=self.device))
                biggest = key.startswith("mismatch/max")
                totals[key] = torch.maximum(before, value) if biggest else before + value
        return old_N

    def _update(self) -> float:
        scaler = self.precision.scaler
        scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        if self.precision.name == "fp16" or bool(torch.isfinite(norm)):
            scaler.step(self.optimizer)  # fp16: skips the step itself on overflow
        scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        return float(norm)

    def _stats(
        self, batch: Batch, totals: dict[str, Tensor], norm: float, lr: float, wall_s: float
    ) -> StepStats:
        count = max(sum(len(m.targets) for m in batch.micro_batches), 1)
        metrics = {k: float(v) for k, v in totals.items()}
        loss = metrics.pop("loss", 0.0)
        for key in metrics:
            if not key.startswith("mismatch/max"):
                metrics[key] /= count
        squares = metrics.pop("correction/weight_sq", 0.0)
        if squares:
            metrics["correction/ess"] = metrics["correction/weight"] ** 2 / squares
        if self.precision.name == "fp16":
            metrics["precision/loss_scale"] = float(self.precision.scaler.get_scale())
        metrics["tokens/without_logprob"] = float(batch.dropped_tokens)
        return StepStats(
            loss=loss, grad_norm=norm, lr=lr, tokens=batch.tokens, wall_s=wall_s, metrics=metrics
        )


def _to(micro: MicroBatch, device: torch.device) -> MicroBatch:
    if device.type == "cpu":
        return micro
    moved = {
        name: getattr(micro, name).to(device, non_blocking=True)
        for name in MicroBatch.__dataclass_fields__
        if isinstance(getattr(micro, name), Tensor)
    }
    return replace(micro, **moved)
