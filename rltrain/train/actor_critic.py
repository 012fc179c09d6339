"""PPO: the policy's learner with a critic.

Of what a batch calls advantages, each answer's last trained token is taken as the answer's reward
(`advantage: reinforce` puts the bare reward there, and every answer must be computed: a reward of 0
says something). Before the policy's epochs the critic values every token, generalised advantage
estimation turns rewards and values into one advantage per token, and the critic is fitted.
Schulman et al. 2017 (arXiv 1707.06347), with the estimator of arXiv 1506.02438.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rltrain.algo.gae import gae, whiten
from rltrain.algo.kl import penalty
from rltrain.algo.scored import Scored
from rltrain.batch.packing import Batch, MicroBatch
from rltrain.config.algo import TrainConfig
from rltrain.config.critic import CriticConfig
from rltrain.config.precision import PrecisionConfig
from rltrain.train.critic import Critic, explained_variance
from rltrain.train.learner import PolicyLearner
from rltrain.train.logprobs import token_scores
from rltrain.train.objective import Objective
from rltrain.train.totals import Totals
from rltrain.types import StepStats


def last_of_each(values_N: Tensor, seq_N: Tensor) -> Tensor:
    """What stands on the last trained token of each sequence, 0 on all others: [N] -> [N]."""
    last_N = torch.ones_like(seq_N, dtype=torch.bool)
    last_N[:-1] = seq_N[1:] != seq_N[:-1]
    return torch.where(last_N, values_N, torch.zeros_like(values_N))


class ActorCriticLearner(PolicyLearner):
    """Owns the policy and its critic. One rank: advantages are whitened over its own tokens."""

    def __init__(
        self,
        model: Any,
        objective: Objective,
        config: TrainConfig,
        max_steps: int,
        critic: CriticConfig,
        precision: PrecisionConfig | None = None,
    ) -> None:
        self._kl_reward = objective.kl_coef if objective.kl_in_reward else 0.0
        if self._kl_reward:  # goes through the critic; not taken off its advantages a second time
            objective = replace(objective, kl_coef=0.0)
        steps = max(1, max_steps - critic.warmup_steps)
        super().__init__(model, objective, config, steps, precision)
        self.critic = Critic(model, critic, config, precision)
        self._critic_only = False
        self._tokens = 0
        self._measured: dict[str, float] = {}

    @property
    def computes_all(self) -> bool:
        return True

    def step(self, batch: Batch) -> StepStats:
        """One step of both. An empty batch changes neither, and is no warm-up of the critic."""
        self._tokens, self._measured = batch.tokens, {}
        return super().step(batch)

    def _prepare(self, batches: list[MicroBatch]) -> list[MicroBatch]:
        """Put the critic's advantages in the place of the batch's, and fit the critic.

        It is fitted here rather than after the policy's epochs because neither sees the other's
        update: the advantages come from the values before it, and they are separate models."""
        self._critic_only = self.critic.steps < self.critic.config.warmup_steps
        values = self.critic.values(batches)
        rewards = self._rewards(batches)
        advantages, returns = self._estimate(batches, rewards, values, self.critic.config.lam)
        _, observed = self._estimate(batches, rewards, values, 1.0)
        self._measured = self.critic.fit(batches, values, returns, self._tokens)
        self._measured["value/mean"] = float(torch.cat(values).mean())
        self._measured["value/explained_variance"] = explained_variance(
            torch.cat(values), torch.cat(observed)
        )
        if self.critic.config.whiten:
            counts = [len(advantages_N) for advantages_N in advantages]
            advantages = list(torch.split(whiten(torch.cat(advantages)), counts))
        return [replace(m, advantages=a) for m, a in zip(batches, advantages, strict=True)]

    def _rewards(self, batches: Sequence[MicroBatch]) -> list[Tensor]:
        """The answer's reward on its last token, and on each token what KL in the reward costs it:
        inside the reward, so that the critic learns to expect it. [N] each."""
        rewards = [last_of_each(micro.advantages, micro.seq) for micro in batches]
        if self._kl_reward:
            costs = self._kl_costs(batches)
            rewards = [r - self._kl_reward * c for r, c in zip(rewards, costs, strict=True)]
        return rewards

    @torch.no_grad()
    def _kl_costs(self, batches: Sequence[MicroBatch]) -> list[Tensor]:
        temperature, kl = self.objective.temperature, self.objective.kl
        assert self.reference is not None and kl is not None
        references = self.reference.logprobs(batches, temperature, self.precision)
        self.model.train()  # as in the policy's own passes; the reference left it otherwise
        costs = []
        for micro, reference_N in zip(batches, references, strict=True):
            with self.precision.compute():
                scores = token_scores(self.model, micro, temperature)
            now_N = scores.logprobs
            scored = Scored(
                new=now_N,
                old=now_N,
                trainer=now_N,
                behaviour=micro.behaviour,
                advantages=micro.advantages,
                seq=micro.seq,
                sequences=micro.sequences,
                entropy=scores.entropy,
                reference=reference_N,
            )
            costs.append(penalty(kl, scored))
        return costs

    def _estimate(
        self,
        batches: Sequence[MicroBatch],
        rewards: Sequence[Tensor],
        values: Sequence[Tensor],
        lam: float,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Advantages and returns of each micro-batch, [N] each."""
        gamma = self.critic.config.gamma
        pairs = [
            gae(rewards_N, values_N, micro.seq, micro.sequences, gamma, lam)
            for micro, rewards_N, values_N in zip(batches, rewards, values, strict=True)
        ]
        return [advantages for advantages, _ in pairs], [returns for _, returns in pairs]

    def _update(self) -> float:
        """The policy's step; while the critic warms up, its gradient is thrown away."""
        if not self._critic_only:
            return super()._update()
        self.optimizer.zero_grad(set_to_none=True)
        return 0.0

    def _stats(
        self, batch: Batch, totals: Totals, norm: float, lr: float, wall_s: float
    ) -> StepStats:
        stats = super()._stats(batch, totals, norm, 0.0 if self._critic_only else lr, wall_s)
        return replace(stats, metrics={**stats.metrics, **self._measured})
