"""The learner's step alone, on the same samples: how packing, attention and precision pay.

Samples have the shape of the flagship's: real prompts, siblings of random tokens and lengths.
Every kind starts from the same weights, and its loss and gradient norm on the first step are kept,
so that a faster kind can be seen to compute the same thing.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltrain.bench import results
from rltrain.config import RunConfig
from rltrain.config.compose import load_config
from rltrain.config.model import TinyModelConfig
from rltrain.config.precision import PrecisionConfig
from rltrain.protocols import Environment

ORACLE = ("padded", "eager", "fp32")
SHORTEST = 16
"""Tokens of the shortest sibling; the longest has `rollout.max_new_tokens`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Model, samples and config that all kinds share."""

    config: RunConfig
    model: Any
    samples: list[Any]


@results.command
def main(
    packings: Sequence[str],
    attentions: Sequence[str],
    precisions: Sequence[str],
    repeats: int,
    overrides: Sequence[str],
    out: Path,
) -> None:
    """Time every combination, in rounds so that drift hits all; write and print the table."""
    import torch

    where = results.machine()
    setting = prepare(load_config(overrides))
    torch.set_num_threads(setting.config.train.threads)
    kinds = list(itertools.product(packings, attentions, precisions))
    steps = {kind: _stepper(setting, kind) for kind in kinds}
    first = {kind: step() for kind, step in steps.items()}  # also warms up
    times: dict[tuple[str, ...], list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, step in steps.items():
            times[kind].append(step().wall_s)
    base = statistics.median(times[ORACLE if ORACLE in times else kinds[0]])
    rows = [
        {
            "packing": kind[0],
            "attention": kind[1],
            "precision": kind[2],
            "median_s": statistics.median(times[kind]),
            "fastest_s": min(times[kind]),
            "speed_up": base / statistics.median(times[kind]),
            "loss": first[kind].loss,
            "grad_norm": first[kind].grad_norm,
            "step_s": times[kind],
        }
        for kind in kinds
    ]
    facts = {
        "machine": where,
        "overrides": list(overrides),
        "parameters": sum(p.numel() for p in setting.model.parameters()),
        "samples": len(setting.samples),
        "tokens": sum(len(sample.ids) for sample in setting.samples),
        "trained_tokens": sum(sum(sample.loss_mask) for sample in setting.samples),
        "threads": setting.config.train.threads,
        "results": rows,
    }
    results.keep(out, "learner", facts, text(facts))


def prepare(config: RunConfig) -> Setting:
    """An untrained policy of the config's shape, and a step's worth of samples for it."""
    from rltrain import build
    from rltrain.rollout.render import Renderer
    from rltrain.warmup.sft import Shape, new_model
    from rltrain.warmup.tokenizer import train_tokenizer

    shape = config.model
    assert isinstance(shape, TinyModelConfig), "bench_learner needs model=tiny"
    env = build.environment(config.environment)
    texts = [m.content for t in itertools.islice(env.tasks("train", 0), 2_000) for m in t.prompt]
    tokenizer = train_tokenizer(texts, shape.vocab_size, shape.max_length)
    fields = Shape.__dataclass_fields__
    model = new_model(tokenizer, Shape(**{k: getattr(shape, k) for k in fields}), seed=0)
    model.config.use_cache = False
    samples = _samples(config, env, Renderer(tokenizer), len(tokenizer))
    return Setting(config=config, model=model, samples=samples)


def _samples(config: RunConfig, env: Environment, renderer: Any, vocabulary: int) -> list[Any]:
    from rltrain.types import Sample

    generator = random.Random(0)
    samples = []
    tasks = itertools.islice(env.tasks("train", 0), config.rollout.groups_per_step)
    for family, task in enumerate(tasks):
        prompt = renderer.prompt(task.prompt)
        for _ in range(config.rollout.group_size):
            length = generator.randint(SHORTEST, max(SHORTEST, config.rollout.max_new_tokens))
            answer = [generator.randrange(vocabulary) for _ in range(length)]
            head, advantage = [0.0] * len(prompt), generator.uniform(-1, 1)
            samples.append(
                Sample(
                    ids=(*prompt, *answer),
                    loss_mask=(*[False] * len(prompt), *[True] * length),
                    logprobs=(*head, *[-math.log(vocabulary)] * length),
                    advantages=(*head, *[advantage] * length),
                    version=0,
                    prefix=len(prompt),
                    family=family,
                )
            )
    return samples


def _stepper(setting: Setting, kind: tuple[str, str, str]) -> Any:
    """A function that takes one optimizer step of this kind, on weights of its own."""
    from rltrain.algo.aggregation import AGGREGATIONS
    from rltrain.batch.packing import make_batch
    from rltrain.train.learner import PolicyLearner
    from rltrain.train.objective import Objective

    packing, attention, precision = kind
    config = setting.config
    model = copy.deepcopy(setting.model)
    model.set_attn_implementation(attention)
    train = config.train.model_copy(update={"packing": packing})
    objective = Objective.from_config(config.algo, config.rollout.temperature)
    chosen = PrecisionConfig.model_validate({"compute": precision})
    learner = PolicyLearner(model, objective, train, 1_000, chosen)
    batch = make_batch(
        setting.samples,
        AGGREGATIONS[config.algo.aggregation],
        horizon=config.rollout.max_new_tokens,
        shared_prefix=packing == "shared_prefix",
        limit=train.micro_batch_tokens,
    )
    return lambda: learner.step(batch)


def text(facts: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    rows = [
        {
            "packing": row["packing"],
            "attention": row["attention"],
            "precision": row["precision"],
            "median step, s": row["median_s"],
            "speed-up": row["speed_up"],
            "loss": f"{row['loss']:.6f}",
            "gradient norm": f"{row['grad_norm']:.5f}",
        }
        for row in facts["results"]
    ]
    caption = (
        f"{facts['parameters'] / 1e6:.1f} M parameters, {facts['samples']} samples, "
        f"{facts['tokens']} tokens of which {facts['trained_tokens']} trained, "
        f"{facts['threads']} thread(s); medians of steps taken in turns, speed-up over "
        f"{', '.join(ORACLE)}. Loss and gradient norm are those of the first step."
    )
    title = "# The learner's step: packing, attention, precision"
    return "\n\n".join([title, results.table(rows), caption])
