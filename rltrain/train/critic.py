"""The critic: a value model beside the policy, with an optimizer of its own.

It begins as a copy of the policy's layers under a head of zeros, so that its first values are 0.
With LoRA it has adapters of its own and trains just those and the head. A value head on the
policy's own layers is not offered: its gradient would have to be weighed against the policy's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rltrain.algo.value_loss import value_loss
from rltrain.batch.packing import MicroBatch
from rltrain.config.algo import TrainConfig
from rltrain.config.critic import CriticConfig
from rltrain.config.precision import PrecisionConfig
from rltrain.train.logprobs import predicting_states
from rltrain.train.model import inner_model
from rltrain.train.precision import Precision


class ValueModel(nn.Module):
    """One value per trained token, in units of reward."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(inner_model(policy).get_decoder())
        weight = next(self.backbone.parameters())
        self.head = nn.Linear(inner_model(policy).config.hidden_size, 1, device=weight.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, micro: MicroBatch, precision: Precision) -> Tensor:
        """Values [N], float32, of the states in which the trained tokens were sampled."""
        with precision.compute():
            hidden_NH = predicting_states(self.backbone, micro)
        # In bf16 a value near 1 would have steps of 0.008, more than many advantages.
        values_N: Tensor = self.head(hidden_NH.float()).squeeze(-1)
        return values_N


class Critic:
    """Owns the value model and its optimizer. One device, like the policy's learner."""

    def __init__(
        self,
        policy: Any,
        config: CriticConfig,
        train: TrainConfig,
        precision: PrecisionConfig | None = None,
    ) -> None:
        precision = precision or PrecisionConfig()
        self.config = config
        self.model = ValueModel(policy)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        # The policy's precision, but a loss scale of its own: the losses differ in size.
        device = self.model.head.weight.device
        self.precision = Precision(precision, device, self.model.named_parameters("critic"))
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.lr,
            betas=train.betas,
            eps=train.eps,
            weight_decay=train.weight_decay,
            fused=True,
        )
        self.steps = 0
        """Batches it was fitted to."""

    @torch.no_grad()
    def values(self, batches: Sequence[MicroBatch]) -> list[Tensor]:
        """Values of each micro-batch, [N] each, without gradient."""
        self.model.eval()
        return [self.model(micro, self.precision) for micro in batches]

    def fit(
        self,
        batches: Sequence[MicroBatch],
        old: Sequence[Tensor],
        returns: Sequence[Tensor],
        tokens: int,
    ) -> dict[str, float]:
        """Take `epochs` optimizer steps towards the returns; the loss is the mean over tokens.

        Args:
            old: the values that `values` gave, [N] for each micro-batch, at least one.
            returns: what they should have been, [N] each.
            tokens: trained tokens of the whole step over all ranks, the loss's denominator.

        Returns `value/loss` before the first update, `value/clipped` (share of tokens) and
        `value/grad_norm` of the last.
        """
        losses, clipped, norm = [], 0.0, 0.0
        self.model.train()
        for _ in range(self.config.epochs):
            total, cut = (torch.zeros((), device=old[0].device) for _ in range(2))
            for micro, old_N, returns_N in zip(batches, old, returns, strict=True):
                values_N = self.model(micro, self.precision)
                result = value_loss(values_N, old_N, returns_N, self.config.clip)
                loss = result.loss.sum() / tokens
                torch.autograd.backward(self.precision.scaler.scale(loss))
                total += loss.detach()
                cut += result.clipped.sum() / tokens
            norm = self.precision.update(
                self.optimizer, self.parameters, self.config.max_grad_norm
            )
            losses.append(float(total))
            clipped = float(cut)
        self.steps += 1
        return {
            "value/loss": losses[0],
            "value/clipped": clipped,
            "value/grad_norm": norm,
        }

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the trained weights, the optimizer, the count of steps."""
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        weights = {k: v for k, v in self.model.state_dict().items() if k in trained}
        return {
            "model": weights,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict` of a critic of the same policy architecture.

        Raises:
            ValueError: if the weights are those of another architecture.
        """
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad}
        if set(state["model"]) != trained:
            raise ValueError("the saved critic has other weights than this one; same model?")
        self.model.load_state_dict(state["model"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.steps = int(state["steps"])


def explained_variance(values_N: Tensor, observed_N: Tensor) -> float:
    """1 - Var(observed - value) / Var(observed): 1 is a perfect critic, 0 one that knows no more
    than a constant does, negative a harmful one. 0 where the observed have no spread."""
    spread = float(observed_N.var(correction=0)) if len(observed_N) else 0.0
    if spread == 0:
        return 0.0
    return 1 - float((observed_N - values_N).var(correction=0)) / spread
