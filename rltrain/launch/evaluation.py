"""Greedy evaluation of a served policy on held-out tasks, through the very code that collects
rollouts, with the judge left out: what counts here is the executed truth."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rltrain import build
from rltrain.config import RunConfig
from rltrain.errors import EngineFault
from rltrain.protocols import Environment
from rltrain.report import wilson
from rltrain.rollout.collect import Collector
from rltrain.rollout.engine_client import EngineClient
from rltrain.rollout.render import Renderer
from rltrain.track import validity, write_rollouts
from rltrain.types import Group, Screened, Task

CONCURRENCY = 128


async def evaluate(
    config: RunConfig,
    engines: EngineClient,
    renderer: Renderer,
    env: Environment,
    tasks: Sequence[Task],
    done: Callable[[int], None] = lambda count: None,
) -> list[Group]:
    """One greedy rollout per task, as groups of one. What the system lost stays lost: such a group
    has a fault and no member."""
    sampler = engines.variant(temperature=0.0)
    collector = Collector(env, sampler, renderer, build.rewarder(config, env, None), config.rollout)
    slots = asyncio.Semaphore(CONCURRENCY)
    finished = itertools.count(1)

    async def one(number: int, task: Task) -> Group:
        async with slots:
            group = await collector.group(number, task, 1, 0)
        done(next(finished))
        return group

    return list(await asyncio.gather(*(one(i, task) for i, task in enumerate(tasks))))


def held_out(config: RunConfig, env: Environment, split: str | None = None) -> list[Task]:
    """The first `eval.tasks` tasks of the held-out split, the same for every run."""
    return list(itertools.islice(env.tasks(split or config.eval.split, 0), config.eval.tasks))


def scores(groups: Sequence[Group], wall_s: float) -> dict[str, Any]:
    """Facts of an evaluation: exact, valid, n, ci95 (Wilson), reward, hack_rate, flags, by_tier.

    Raises:
        EngineFault: if not one task could be evaluated.
    """
    members = [member for group in groups for member in group.members]
    if not members:
        raise EngineFault("no task could be evaluated; see logs/engine.log")
    exact = [_truth(m) for m in members]
    passed = validity([m.judged.verdicts for m in members])
    flags = Counter(flag.detector for m in members for flag in m.flags)
    tiers: dict[str, list[float]] = defaultdict(list)
    for group in groups:
        for m in group.members:
            tiers[str(group.task.meta.get("tier", "all"))].append(_truth(m))
    hits = sum(value == 1.0 for value in exact)
    return {
        "exact": hits / len(members),
        "valid": fmean(passed) if passed else None,
        "n": len(members),
        "ci95": list(wilson(hits, len(members))),
        "reward": fmean(m.reward for m in members),
        "hack_rate": fmean(bool(m.flags) for m in members),
        "flags": {name: count / len(members) for name, count in sorted(flags.items())},
        "by_tier": {k: {"exact": fmean(v), "n": len(v)} for k, v in sorted(tiers.items())},
        "faults": sum(len(group.faults) for group in groups),
        "wall_s": wall_s,
    }


def _truth(member: Screened) -> float:
    return member.judged.truth if member.judged.truth is not None else member.reward


def run_evaluation(
    config: RunConfig,
    place: build.Place,
    tasks: Sequence[Task],
    out: Path,
    done: Callable[[int], None] = lambda count: None,
    version: int = 0,
) -> dict[str, Any]:
    """Evaluate what the engines serve now, store the rollouts at `out`, return the facts."""
    started = time.monotonic()
    env = build.environment(config.environment)
    renderer = Renderer.load(place.model)

    async def measure() -> list[Group]:
        engines = build.client(config, place, renderer)
        if config.train.lora and version == 0:  # the adapter does not exist before the first push
            engines = engines.variant(model="policy")
        try:
            return await evaluate(config, engines, renderer, env, tasks, done)
        finally:
            await engines.aclose()

    groups = asyncio.run(measure())
    facts = scores(groups, time.monotonic() - started)
    write_rollouts(out, [g for g in groups if g.members], step=version, version=version)
    return facts
