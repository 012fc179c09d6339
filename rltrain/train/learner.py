"""One optimizer step of policy-gradient training: scores, objective, gradients, update."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rltrain.algo.corrections import Correction
from rltrain.algo.mismatch import by_lag, gaps, mismatch
from rltrain.algo.proximal import Policies
from rltrain.algo.ratio import ratio
from rltrain.algo.scored import Scored
from rltrain.batch.packing import Batch, MicroBatch
from rltrain.config.algo import TrainConfig
from rltrain.config.precision import PrecisionConfig
from rltrain.train.logprobs import set_kernel, token_scores
from rltrain.train.model import inner_model
from rltrain.train.objective import Objective, Terms
from rltrain.train.precision import Precision, set_head
from rltrain.train.reference import Reference
from rltrain.train.totals import Totals
from rltrain.types import StepStats


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
        self,
        model: Any,
        objective: Objective,
        config: TrainConfig,
        max_steps: int,
        precision: PrecisionConfig | None = None,
    ) -> None:
        """precision: None is fp32."""
        precision = precision or PrecisionConfig()
        set_head(inner_model(model), precision)  # before the reference copies it
        set_kernel(inner_model(model), config.logprob_kernel)
        self.model = model
        self.objective = objective
        self.config = config
        self.device = next(model.parameters()).device
        self.precision = Precision(precision, self.device, model.named_parameters())
        self.reference = Reference(model) if objective.kl is not None else None
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
        self.corrected = False
        """Whether a correction was switched on since training began (`correct`)."""
        self.version = 0
        """Version of the policy that the next step begins with: the number of steps taken."""

    @property
    def computes_all(self) -> bool:
        """Whether a batch must hold the sequences whose advantage is 0 too."""
        return self.objective.moves_without_advantage

    def correct(self, correction: Correction) -> None:
        """Use this correction from the next step on."""
        self.objective = replace(self.objective, correction=correction)
        self.corrected = True

    def step(self, batch: Batch) -> StepStats:
        """Take `epochs` optimizer steps on a batch. An empty batch changes nothing."""
        started = time.perf_counter()
        lr = float(self.schedule.get_last_lr()[0])
        totals = Totals()
        norm = 0.0
        if batch.micro_batches:
            batches = self._prepare([_to(micro, self.device) for micro in batch.micro_batches])
            norm = self._epochs(batches, batch.tokens, totals)
        self.version += 1
        return self._stats(batch, totals, norm, lr, time.perf_counter() - started)

    def _prepare(self, batches: list[MicroBatch]) -> list[MicroBatch]:
        """What happens to a step's micro-batches before the first epoch. A subclass may measure
        them and put other advantages in; here nothing. Never called for an empty batch."""
        return batches

    def _epochs(self, batches: list[MicroBatch], tokens: int, totals: Totals) -> float:
        """All passes over a batch, the first of them measured. Returns the last gradient norm."""
        references: list[Tensor | None] = [None] * len(batches)
        if self.reference is not None:
            references = list(
                self.reference.logprobs(batches, self.objective.temperature, self.precision)
            )
        trainers: list[Tensor | None] = [None] * len(batches)
        norm = 0.0
        self.model.train()
        for epoch in range(self.objective.epochs):
            for i, micro in enumerate(batches):
                scored, terms = self._backward(micro, trainers[i], references[i], tokens)
                trainers[i] = scored.trainer
                if epoch == 0:
                    measure(totals, scored, terms, self.version - micro.versions)
            norm = self._update()
            totals.skipped += not math.isfinite(norm)
        return norm

    def _backward(
        self,
        micro: MicroBatch,
        trainer_N: Tensor | None,
        reference_N: Tensor | None,
        tokens: int,
    ) -> tuple[Scored, Terms]:
        """Score one micro-batch and add its gradient. `trainer_N` is the policy that began the
        step; None takes this pass's own, so that the ratio is exactly 1."""
        with self.precision.compute():
            scores = token_scores(
                self.model,
                micro,
                self.objective.temperature,
                entropy_grad=self.objective.entropy_coef != 0,
            )
        now_N = scores.logprobs.detach()
        trainer_N = now_N if trainer_N is None else trainer_N
        policies = Policies(now_N, trainer_N, micro.behaviour, self.version - micro.versions)
        scored = Scored(
            new=scores.logprobs,
            old=self.objective.proximal(policies),
            trainer=trainer_N,
            behaviour=micro.behaviour,
            advantages=micro.advantages,
            seq=micro.seq,
            sequences=micro.sequences,
            entropy=scores.entropy,
            reference=reference_N,
        )
        terms = self.objective(scored, micro.weights, tokens)
        torch.autograd.backward(self.precision.scaler.scale(terms.loss))
        return scored, terms

    def _update(self) -> float:
        """Take the optimizer step. Returns the gradient's norm; if it is not finite, weights,
        optimizer and schedule stay as they are (and fp16 lowers its loss scale)."""
        norm = self.precision.update(self.optimizer, self.parameters, self.config.max_grad_norm)
        if math.isfinite(norm):
            self.schedule.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """What training goes on from, besides the weights. Not copied: it is the state itself."""
        return {
            "version": self.version,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict` of a learner of the same model and config."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.version = int(state["version"])

    def _stats(
        self, batch: Batch, totals: Totals, norm: float, lr: float, wall_s: float
    ) -> StepStats:
        metrics = totals.metrics()
        metrics.pop("loss", None)
        metrics |= self.precision.metrics()
        metrics["mismatch/corrected"] = float(self.corrected)
        metrics["tokens/without_logprob"] = float(batch.dropped_tokens)
        return StepStats(
            loss=totals.total("loss"),
            grad_norm=norm,
            lr=lr,
            tokens=batch.tokens,
            wall_s=wall_s,
            metrics=metrics,
        )


@torch.no_grad()
def measure(totals: Totals, scored: Scored, terms: Terms, lag_N: Tensor) -> None:
    """Add what one micro-batch says about the step, before its first update."""
    values = {
        "loss": terms.loss,
        "policy/entropy": scored.entropy,
        "ratio/mean": ratio(scored.new, scored.old),
        "ratio/clipped": terms.clipped,
        "correction/weight": terms.weight,
        "correction/weight_sq": terms.weight**2,
        "correction/masked": (terms.weight == 0).float(),
        **mismatch(scored),
        **by_lag(scored, lag_N),
    }
    if terms.kl is not None:
        values["kl/mean"] = terms.kl
    totals.add(values)
    totals.gaps.append(
        gaps(scored.trainer, scored.behaviour, scored.seq, scored.sequences)
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
