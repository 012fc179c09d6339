"""Greedy evaluation of a served policy on held-out tasks, through the very code that collects
rollouts, with the judge left out: what counts here is the executed truth."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rltrain import build
from rltrain.config import RunConfig
from rltrain.errors import EngineFault, UserError
from rltrain.protocols import Environment
from rltrain.report import wilson
from rltrain.rollout.collect import Collector
from rltrain.rollout.engine_client import EngineClient
from rltrain.rollout.render import Renderer
from rltrain.track import validity, write_rollouts
from rltrain.types import Group, Screened, Task

CONCURRENCY = 128
CHECK_S = 0.5


class WeightsLost(Exception):
    """The engine was started anew and no longer serves the weights that are evaluated."""


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
    name = split or config.eval.split
    tasks = list(itertools.islice(env.tasks(name, 0), config.eval.tasks))
    if not tasks:
        entry = config.environment.entry
        raise UserError(f"the split {name!r} of {entry} holds no task to evaluate on")
    return tasks


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
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Evaluate what the engines serve now, store the rollouts at `out`, return the facts.

    version: what a learner pushed to the engines and they must serve; 0, or engines that no learner
    pushes to (`place.queue` is empty), take the weights that they were started with. check: called
    now and then; raises to give up.

    Raises `WeightsLost` if an engine was started anew since its push, and what `check` raises."""
    started = time.monotonic()
    env = build.environment(config.environment)
    renderer = Renderer.load(place.model)
    pushed = version if place.queue else 0

    async def measure() -> list[Group]:
        engines = build.client(config, place, renderer)
        if not pushed:  # nor does an adapter exist
            engines = engines.variant(initial=True, model="policy")
        try:
            work = asyncio.create_task(evaluate(config, engines, renderer, env, tasks, done))
            try:
                while not (await asyncio.wait({work}, timeout=CHECK_S))[0]:
                    check()
                    await _require(engines, pushed)
                return await work
            finally:
                work.cancel()
        finally:
            await engines.aclose()

    groups = asyncio.run(measure())
    facts = scores(groups, time.monotonic() - started)
    write_rollouts(out, [g for g in groups if g.members], step=version, version=version)
    return facts


async def _require(engines: EngineClient, version: int) -> None:
    with contextlib.suppress(EngineFault):  # it is down: what it serves is seen once it is back
        if version and set(await engines.versions()) != {str(version)}:
            raise WeightsLost
