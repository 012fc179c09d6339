"""The training loop with everything real but the engine's process: environment, gates, collector,
advantages, packing, learner and `loop.train` itself, on a policy of 10,000 parameters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from rltrain import build
from rltrain.algo.advantages import GREEDY
from rltrain.batch.resolve import batcher
from rltrain.config import RunConfig
from rltrain.loop import Parts, train
from rltrain.rollout.collect import Collector
from rltrain.rollout.plan import group_seed
from rltrain.rollout.render import Renderer
from rltrain.train.resolve import learner_of
from rltrain.types import Group, StepStats, Task
from tests.loop.token_env import tokenizer
from tests.loop.transformers_engine import TransformersEngine

BASE: dict[str, Any] = {
    "name": "loop",
    "max_steps": 3,
    "model": {"source": "tiny", "max_length": 32},
    "environment": {"entry": "tests.loop.token_env:build"},
    "rewards": {"stages": [{"check": "answered"}, {"check": "mean_digit"}]},
    "rollout": {"group_size": 4, "groups_per_step": 2, "max_lag": 1, "max_new_tokens": 5},
    "train": {"lr": 1e-2, "micro_batch_tokens": 32},
}
"""Small enough for a hundred runs. Lag 1 and a large learning rate: off policy, so that ratios and
corrections have something to do; several micro-batches a step."""


def config_of(algo: Mapping[str, Any], **changes: Any) -> RunConfig:
    """BASE with this algorithm, and keys of other sections changed."""
    tree = {**BASE, "algo": dict(algo)}
    for section, values in changes.items():
        tree[section] = {**tree[section], **values} if isinstance(values, Mapping) else values
    return RunConfig.model_validate(tree)


def small_policy(vocabulary: int, head_dim: int = 16) -> Any:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, head_dim=head_dim,
            max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.1,
            eos_token_id=0, pad_token_id=1, bos_token_id=None, use_cache=False,
            attn_implementation="eager",
        )
    )  # fmt: skip


class LaggingGroups:
    """Implements `loop.Groups`: collects with what the engine serves, `max_lag` steps ahead."""

    def __init__(self, collector: Collector, tasks: Iterator[Task], config: RunConfig) -> None:
        self.collector = collector
        self.tasks = tasks
        self.config = config
        self.leased = 0
        self.ahead: list[list[Group]] = []

    def take(self, count: int) -> list[Group]:
        while len(self.ahead) <= self.config.rollout.max_lag:
            self.ahead.append([asyncio.run(self._collect()) for _ in range(count)])
        return self.ahead.pop(0)

    async def _collect(self) -> Group:
        lease, self.leased = self.leased, self.leased + 1
        seed = group_seed(self.config.seed, lease)
        size = self.config.rollout.group_size
        return await self.collector.group(lease, next(self.tasks), size, seed)

    def advance(self, version: int) -> None:
        pass


@dataclass(slots=True)
class Result:
    """What a run left behind."""

    model: Any
    learner: Any
    engine: TransformersEngine
    before: dict[str, Tensor]
    groups: list[Sequence[Group]] = field(default_factory=list)
    stats: list[StepStats] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)

    def __call__(self, step: int, groups: Any, stats: StepStats, seconds: Any) -> None:
        self.groups.append(groups)
        self.stats.append(stats)

    def close(self) -> None:
        pass

    @property
    def moved(self) -> float:
        """Largest change of any weight."""
        after = self.model.state_dict()
        return max(float((after[k] - v).abs().max()) for k, v in self.before.items())

    def mean_rewards(self) -> list[float]:
        """Of each step."""
        rewards = [[m.reward for g in groups for m in g.members] for groups in self.groups]
        return [sum(values) / len(values) for values in rewards]


def run_loop(config: RunConfig) -> Result:
    """Train as `rltrain train` does, wired by the same functions."""
    build.check_names(config)
    renderer = Renderer(tokenizer())
    model = small_policy(len(renderer.tokenizer))
    torch.manual_seed(config.seed)
    learner = learner_of(config, model)
    engine = TransformersEngine(model, renderer, config.rollout.temperature)
    env = build.environment(config.environment)
    greedy = engine.variant(temperature=0.0) if config.algo.advantage in GREEDY else None
    collector = Collector(
        env, engine, renderer, build.rewarder(config, env, None), config.rollout, greedy
    )
    result = Result(model, learner, engine, {k: v.clone() for k, v in model.state_dict().items()})
    parts = Parts(
        groups=LaggingGroups(collector, env.tasks("train", config.seed), config),
        make_batch=batcher(config, learner.computes_all),
        learner=learner,
        sync=engine,
        record=result,
        save=result.saved.append,
    )
    asyncio.run(
        train(
            parts,
            max_steps=config.max_steps,
            groups_per_step=config.rollout.groups_per_step,
            save_every=0,
        )
    )
    return result
