"""What a run's policy answered lately: labelled pairs for its judge, and whether they drifted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rltrain import build
from rltrain.bench.calibration_drift import drift
from rltrain.bench.calibration_set import Item, item_of
from rltrain.bench.reviews import SLACK, rollouts
from rltrain.errors import UserError
from rltrain.rundir import RunDir
from rltrain.types import Task

LATELY = 0.25
"""Share of the steps, from the end, that counts as current."""
MOST = 2_000
"""Rollouts whose answers are compared with the ground-truth set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPolicy:
    """A random sample of a run's current rollouts."""

    run: str
    steps: tuple[int, int]
    """First and last step that the sample is from."""
    items: tuple[Item, ...]
    """Those whose truth is known, as a judge would see them."""
    answers: tuple[str, ...]
    """Canonical where there is such a form."""


def sample(run: Path, count: int, seed: int) -> OnPolicy:
    """Draw up to `count` labelled pairs, and up to 2,000 answers, from the last quarter of the
    steps. Raises `UserError` for what is no run, or has no rollouts."""
    config = RunDir(run).load_config()
    env = build.environment(config.environment)
    rows = list(rollouts(run))
    last = max(row["step"] for row in rows)
    first = last - round(LATELY * (last - min(row["step"] for row in rows)))
    current = [row for row in rows if row["step"] >= first]
    drawn = np.random.default_rng(seed).permutation(len(current))[: max(MOST, count)]
    chosen = [current[place] for place in drawn]
    tasks = _tasks(run, {row["task_id"] for row in chosen}, max(row["lease"] for row in rows))
    items: dict[str, Item] = {}
    answers = []
    for row in chosen:
        task, answer = tasks[row["task_id"]], row["answer"] or ""
        canonical = env.canonical(task, answer)
        answers.append(answer if canonical is None else canonical)
        if canonical is not None and row["truth"] is not None and len(items) < count:
            item = item_of(task, canonical, truth=float(row["truth"] == 1.0))
            items.setdefault(item.key, item)
    return OnPolicy(
        run=str(run), steps=(first, last), items=tuple(items.values()), answers=tuple(answers)
    )


def drifted(reference: Sequence[str], current: OnPolicy) -> dict[str, Any]:
    """`drift` of the run's answers from the ground-truth set's, and which features are flagged."""
    features = drift(reference, current.answers)
    return {
        "features": features,
        "flagged": [name for name, found in features.items() if found["flagged"]],
        "reference": len(reference), "current": len(current.answers),
        "run": current.run, "steps": list(current.steps),
    }  # fmt: skip


def _tasks(run: Path, wanted: set[str], leases: int) -> dict[str, Task]:
    """The run's tasks, drawn again from its seed. Raises `UserError` if its environment changed."""
    config = RunDir(run).load_config()
    env = build.environment(config.environment)
    stream = islice(env.tasks("train", config.seed), leases + SLACK)
    found: dict[str, Task] = {}
    for task in stream:
        if task.id in wanted:
            found[task.id] = task
        if len(found) == len(wanted):
            return found
    raise UserError(
        f"{run} has tasks that its environment does not make any more; take a run of this version"
    )
