"""How far learner and engine are apart, measured alone: the same tokens, scored three times.

    the real engine samples (decode) ─┬─> the engine scores them again (prefill)
                                      └─> the learner scores them, as it does in training

Three pairs follow. `sampled` against the learner is what training sees; `prefill` against the
learner leaves out what decoding adds; `sampled` against `prefill` is the engine against itself.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rltrain import build
from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.algo.mismatch import Gaps, described, gaps, joined
from rltrain.algo.ratio import sequence_sum
from rltrain.batch.packing import make_batch
from rltrain.bench import results
from rltrain.config import RunConfig
from rltrain.config.compose import load_config
from rltrain.config.precision import PrecisionConfig
from rltrain.errors import EngineFault, UserError
from rltrain.launch.models import Phase, ensure_models
from rltrain.launch.servers import engine_dtype, serving
from rltrain.rollout.render import Renderer
from rltrain.rundir import create_run
from rltrain.train.logprobs import token_scores
from rltrain.train.model import load_policy
from rltrain.train.precision import Precision, set_head
from rltrain.types import Sample, Turn

if TYPE_CHECKING:
    from rltrain.rollout.engine_client import EngineClient

PAIRS = ("sampled / learner", "prefill / learner", "sampled / prefill")
RESAMPLES = 2_000
_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What the engine said, twice."""

    turn: Turn
    """One answer, with the log-probabilities of its sampling (nats, temperature 1)."""
    prefill: tuple[float, ...]
    """Those that the engine gives to the same tokens when they come as a prompt."""


async def sample(
    client: EngineClient, prompts: Sequence[Sequence[int]], max_tokens: int, seed: int = 0
) -> list[Scored]:
    """One answer to each prompt at temperature 1, scored again by prefill. Answers with a
    log-probability that is not finite are left out. Raises `EngineFault`."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, prompt: Sequence[int]) -> Scored:
        async with free:
            (turn,) = await client.generate(prompt, n=1, seed=seed + number, max_tokens=max_tokens)
        async with free:
            scores = await client.score([*turn.prompt_ids, *turn.completion_ids])
        return Scored(turn=turn, prefill=tuple(scores[len(turn.prompt_ids) - 1 :]))

    # All are sampled side by side, as in training: the engine's batches are as large as there.
    found = await asyncio.gather(*(one(i, prompt) for i, prompt in enumerate(prompts)))
    kept = [f for f in found if np.isfinite([*f.turn.logprobs, *f.prefill]).all()]
    if not kept:
        raise EngineFault("the engine gave no finite log-probabilities; nothing can be compared")
    return kept


def _samples(turns: Sequence[Turn]) -> list[Sample]:
    made = []
    for number, turn in enumerate(turns):
        prompt, answer = len(turn.prompt_ids), len(turn.completion_ids)
        made.append(
            Sample(
                ids=(*turn.prompt_ids, *turn.completion_ids),
                loss_mask=(*[False] * prompt, *[True] * answer),
                logprobs=(*[0.0] * prompt, *turn.logprobs),
                advantages=(*[0.0] * prompt, *[1.0] * answer),
                version=0,
                prefix=prompt,
                family=number,
            )
        )
    return made


@torch.no_grad()
def compare(model: Any, precision: Precision, scored: Sequence[Scored], limit: int) -> list[Gaps]:
    """The gaps of `PAIRS`. limit: padded tokens of one of the learner's forward passes."""

    def batched(turns: list[Turn]) -> Any:
        weigh = AGGREGATIONS["token_mean"]
        return make_batch(_samples(turns), weigh, horizon=1, shared_prefix=False, limit=limit)

    sampled = batched([one.turn for one in scored]).micro_batches
    prefilled = batched([replace(one.turn, logprobs=one.prefill) for one in scored]).micro_batches
    parts: list[list[Gaps]] = [[], [], []]
    model.eval()
    for first, second in zip(sampled, prefilled, strict=True):  # the same tokens in both
        with precision.compute():
            own_N = token_scores(model, first, 1.0).logprobs.float()
        for part, (a_N, b_N) in zip(
            parts,
            ((own_N, first.behaviour), (own_N, second.behaviour),
             (second.behaviour, first.behaviour)),
            strict=True,
        ):  # fmt: skip
            part.append(gaps(a_N, b_N, first.seq, first.sequences))
    return [joined(part) for part in parts]


def measured(found: Gaps, seed: int = 0) -> dict[str, Any]:
    """Every metric of a set of answers; of means also the 95 % interval, bootstrapped over answers.
    `equal` is the share of tokens whose log-probabilities are the same bits."""
    seq_N = found.first.long().cumsum(0) - 1
    answers = len(found.length)
    d_N = found.tokens.double()
    sums: dict[str, Tensor] = {
        "mean_abs_logprob": sequence_sum(d_N.abs(), seq_N, answers),
        "k1": sequence_sum(-d_N, seq_N, answers),
        "k3": sequence_sum(d_N.expm1() - d_N, seq_N, answers),
        "equal": sequence_sum((d_N == 0).double(), seq_N, answers),
    }
    length_S = found.length.double().numpy()
    draws = np.random.default_rng(seed).multinomial(
        answers, [1 / answers] * answers, size=RESAMPLES
    )
    out: dict[str, Any] = {"tokens": len(d_N), "answers": answers}
    for name, sum_S in sums.items():
        values = draws @ sum_S.numpy() / (draws @ length_S)
        out[name] = float(sum_S.sum() / length_S.sum())
        out[f"{name}_ci95"] = [float(x) for x in np.quantile(values, (0.025, 0.975))]
    other = {k.removeprefix("mismatch/"): float(v) + 0.0 for k, v in described(found).items()}
    return {**out, **other}


def learner_of(folder: str, config: RunConfig, chosen: PrecisionConfig) -> tuple[Any, Precision]:
    """The policy as training loads it, and how it computes."""
    model = load_policy(folder, config.train)
    set_head(model, chosen)
    return model, Precision(chosen, next(model.parameters()).device)


def prompts_of(config: RunConfig, renderer: Renderer, count: int) -> list[list[int]]:
    """Prompts of the first training tasks. Raises `UserError` for a split that is too small."""
    env = build.environment(config.environment)
    tasks = list(itertools.islice(env.tasks("train", config.seed), count))
    if not tasks:
        raise UserError(f"environment {env.name} has no training tasks to sample from")
    return [renderer.prompt(task.prompt) for task in tasks]


def measure(config: RunConfig, folder: str, logs: Path, phase: Phase, answers: int) -> Any:
    """One precision: starts the engine, samples, compares. Returns the facts of each pair."""
    plain = config.model_copy(update={"train": config.train.model_copy(update={"lora": None})})
    renderer = Renderer.load(folder)
    prompts = prompts_of(config, renderer, answers)
    tokens = config.rollout.max_new_tokens
    dtype = engine_dtype(plain)
    with serving(plain, folder, None, logs, lambda text: phase(text, 0, 0, "")) as servers:
        place = build.Place(
            model=folder, engines=(servers.policy.url,), judge=None, queue="", dtype=dtype
        )

        async def ask() -> list[Scored]:
            client = build.client(plain, place, renderer)
            try:
                engine = client.variant(temperature=1.0, initial=True)
                return await sample(engine, prompts, tokens, config.seed)
            finally:
                await client.aclose()

        phase("sampling and scoring", 0, 0, f"engine in {dtype}")
        scored = asyncio.run(ask())
    model, precision = learner_of(folder, plain, config.precision)
    found = compare(model, precision, scored, config.train.micro_batch_tokens)
    pairs = {pair: measured(one) for pair, one in zip(PAIRS, found, strict=True)}
    return {"engine": dtype, "learner": config.precision.model_dump(mode="json"), "pairs": pairs}


def run(
    overrides: Sequence[str], precisions: Sequence[str], answers: int, phase: Phase
) -> dict[str, Any]:
    """Measure every precision in turn, each with an engine of its own.

    precisions: options of the group `precision`; none measures what the overrides say."""
    chosen = [(name, [*overrides, f"precision={name}"]) for name in precisions]
    configs = {name: load_config(given) for name, given in chosen}
    if not configs:
        config = load_config(overrides)
        configs = {f"{config.precision.compute}, head {config.precision.head}": config}
    where = results.machine()
    rows = {}
    with tempfile.TemporaryDirectory() as work:
        for name, config in configs.items():
            aside = config.model_copy(update={"runs_dir": work, "name": "mismatch"})
            made = create_run(aside)
            folder, _, _ = ensure_models(config, made, phase, with_judge=False)
            torch.set_num_threads(config.train.threads)
            rows[name] = measure(config, folder, made.logs, phase, answers)
    return {
        "machine": where,
        "overrides": list(overrides),
        "answers": answers,
        "max_new_tokens": config.rollout.max_new_tokens,
        "precisions": rows,
    }


def text(facts: Mapping[str, Any]) -> str:
    """The tables in Markdown."""
    rows = []
    for name, one in facts["precisions"].items():
        for pair, found in one["pairs"].items():
            rows.append(
                {
                    "precision": name,
                    "pair": pair,
                    "tokens": found["tokens"],
                    "mean abs d (95 %)": _with_interval(found, "mean_abs_logprob"),
                    "p50": f"{found['p50_abs_logprob']:.1e}",
                    "p99": f"{found['p99_abs_logprob']:.1e}",
                    "max": f"{found['max_abs_logprob']:.1e}",
                    "k3 (95 %)": _with_interval(found, "k3"),
                    "max ratio": f"{found['max_ratio']:.6f}",
                    "sequence KL": f"{found['sequence_kl']:.1e}",
                    "slope / 1k": f"{found['slope_per_1k']:.1e}",
                    "first": f"{found['first_token']:.1e}",
                    "later": f"{found.get('later_tokens', float('nan')):.1e}",
                    "same bits": f"{100 * found['equal']:.1f} %",
                }
            )
    given = " ".join(["rltrain mismatch", *facts["overrides"]])
    names = ",".join(facts["precisions"])
    title = "# Learner against engine, by precision"
    caption = (
        f"`{given} --precisions {names} --answers {facts['answers']}`: one answer of at most "
        f"{facts['max_new_tokens']} tokens to each of {facts['answers']} training tasks, sampled "
        "at temperature 1. Of a pair a / b, d = log p_b - log p_a per token, in nats; k3 and "
        "sequence KL estimate KL(a || b). Prefill: the engine scores its own answer as a prompt. "
        "Same bits: tokens with d = 0. Intervals: bootstrap over answers."
    )
    return "\n\n".join([title, results.table(rows), caption])


def _with_interval(found: Mapping[str, Any], name: str) -> str:
    low, high = found[f"{name}_ci95"]
    return f"{found[name]:.2e} ({low:.1e}–{high:.1e})"
