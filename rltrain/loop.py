"""The training loop, on one screen.

    consumes   groups (judged, screened, at most `max_lag` versions old) from the dispatcher
    waits for  the workers, in `take`; the engines, in `push`
    produces   new weights in every engine, one row of metrics, one file of rollouts, a settled
               ledger, checkpoints
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from rltrain.batch.packing import Batch
from rltrain.errors import RltrainError
from rltrain.protocols import Learner, WeightSync
from rltrain.sync.guard import guarded
from rltrain.types import Group, StepStats


class Groups(Protocol):
    """The lag-bounded buffer."""

    def take(self, count: int) -> list[Group]: ...
    def advance(self, version: int) -> None: ...


class Record(Protocol):
    """Keeps what happened: settles the ledger, stores rollouts, logs the row of metrics."""

    def __call__(
        self, step: int, groups: Sequence[Group], stats: StepStats, seconds: Mapping[str, float]
    ) -> None: ...

    def close(self) -> None: ...


async def _nothing() -> None:
    pass


def _open(step: int, stats: StepStats) -> RltrainError | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop is made of; `learning.learning` makes the real ones."""

    groups: Groups
    make_batch: Callable[[Sequence[Group]], Batch]
    learner: Learner
    sync: WeightSync
    record: Record
    save: Callable[[int], None]
    """Writes a checkpoint of a step."""
    audit: Callable[[], Awaitable[None]] = _nothing
    """Compares learner and engines before anything is done; raises if they cannot agree."""
    gate: Callable[[int, StepStats], RltrainError | None] = _open
    """Judges a step; an error ends the run, after a checkpoint."""
    done: int = 0
    """Steps that were taken before this process began."""


async def train(parts: Parts, *, max_steps: int, groups_per_step: int, save_every: int) -> None:
    """Run all steps that are left. Any exception ends the loop; nothing is trained on twice or
    skipped."""
    done = parts.done
    await parts.audit()
    await parts.sync.push(parts.learner.model, version=done)  # a broken path fails here
    parts.groups.advance(done)
    for step in range(done + 1, max_steps + 1):
        clock = _Clock()
        take = partial(parts.groups.take, groups_per_step)
        groups = await guarded(take, parts.sync, parts.learner.model, version=step - 1)
        clock.lap("wait_s")
        stats = parts.learner.step(parts.make_batch(groups))
        clock.lap("learn_s")
        pushed = await parts.sync.push(parts.learner.model, version=step)
        parts.groups.advance(step)
        clock.lap("sync_s")
        parts.record(step, groups, stats, {**clock.laps, **_prefixed(pushed)})
        stopped = parts.gate(step, stats)
        if stopped or step == max_steps or (save_every and step % save_every == 0):
            parts.save(step)
        if stopped:
            raise stopped


class _Clock:
    """Seconds between verbs."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now


def _prefixed(values: Mapping[str, Any]) -> dict[str, float]:
    return {f"push_{key}": float(value) for key, value in values.items()}
