"""Whatever happens in whatever order, over any number of crashes: the ledger adds up, a rollout is
consumed once in the history that survives, no task is skipped, and the lag stays within its bound.

The dispatcher is driven by hand, without its thread, so that a failure can be shrunk."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rltrain.rollout import roster, wire
from rltrain.rollout.dispatch import Dispatcher
from rltrain.rollout.ledger import Ledger
from rltrain.rollout.plan import DispatchPlan
from rltrain.rollout.settle import settle_all
from rltrain.types import Group
from tests.makers import make_group, make_task, make_turn

GROUPS, SIBLINGS, STEPS, LAG, KEPT = 2, 3, 8, 1, 2
WORKER = b"worker-0"
PLAN = DispatchPlan(
    groups_per_step=GROUPS, group_size=SIBLINGS, max_steps=STEPS, max_lag=LAG, seed=3,
    max_fault_rate=1.0, max_replaced=1,
)  # fmt: skip
KINDS = {
    "mixed": {"rewards": [1.0, 0.0, 0.5]},
    "flat": {"rewards": [1.0, 1.0, 1.0]},
    "one lost": {"rewards": [1.0, 0.0, 0.5], "lost": [1]},
    "all lost": {"rewards": [1.0, 0.0, 0.5], "lost": [0, 1, 2]},
    "two dropped": {"rewards": [1.0, 0.0, 0.5], "dropped": [0, 2]},
}
_stamp = itertools.count(1)


def sampled(lease: int, kind: str, version: int) -> Group:
    """A group that no other sampling gave: each has token ids of its own."""
    group = make_group(lease=lease, version=version, **KINDS[kind])  # type: ignore[arg-type]
    turn = make_turn(completion_ids=(next(_stamp), 9), version=version)
    members = tuple(
        replace(m, judged=replace(m.judged, episode=replace(m.judged.episode, turns=(turn,))))
        for m in group.members
    )
    return replace(group, members=members)


class Run(RuleBasedStateMachine):
    """A learner, its ledger and one worker; time and messages are in the test's hand."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.sqlite"
        self.patch = patch.object(roster, "GRACE_S", -1.0)
        self.patch.start()
        self.steps: dict[int, list[Group]] = {}
        """What each step of the surviving history consumed."""
        self.before: dict[int, list[Group]] = {}
        """The same of the history before the last crash, as far as it must come out again."""
        self.saved = [0]
        self.held: dict[int, int] = {}
        """Leases at the worker, with the policy version at which they were given out."""
        self.sent: list[Group] = []
        self.open(0)
        self.reader = sqlite3.connect(self.path)

    def open(self, step: int) -> None:
        self.ledger = Ledger(self.path)
        tasks = (make_task(n) for n in itertools.count())
        address = f"ipc://{self.folder.name}/queue"
        self.dispatcher = Dispatcher(address, tasks, self.ledger, PLAN, step=step)
        self.step = step
        self.held = {}
        self.dispatcher.advance(step)

    def shut(self) -> None:
        self.dispatcher._socket.close(linger=0)
        self.ledger.close()

    def teardown(self) -> None:
        self.reader.close()
        self.shut()
        self.patch.stop()
        self.folder.cleanup()

    def ready(self) -> bool:
        self.dispatcher._intake.read(GROUPS)
        return len(self.dispatcher._intake.ready) >= GROUPS

    def rows(self, query: str) -> list[tuple[int, ...]]:
        return self.reader.execute(query).fetchall()

    def say(self, message: wire.ToLearner) -> None:
        self.dispatcher._handle(WORKER, message)
        self.lease_out()

    def lease_out(self) -> None:
        def count() -> dict[int, int]:
            return dict(self.rows("SELECT lease, attempts FROM leases"))  # type: ignore[arg-type]

        before = count()
        self.dispatcher._lease_out()
        for lease, attempts in count().items():
            if before.get(lease) != attempts:
                self.held[lease] = self.step

    @rule(room=st.integers(1, 6))
    def worker_has_room(self, room: int) -> None:
        self.say(wire.Alive(capacity=room, holding=tuple(self.held)))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), kind=st.sampled_from(list(KINDS)), twice=st.booleans())
    def a_group_comes_back(self, data: st.DataObject, kind: str, twice: bool) -> None:
        lease = data.draw(st.sampled_from(sorted(self.held)))
        group = sampled(lease, kind, self.held.pop(lease))
        self.sent.append(group)
        self.say(wire.Done(group=group))
        if twice:
            self.say(wire.Done(group=group))

    @rule(kinds=st.lists(st.sampled_from(list(KINDS)), min_size=6, max_size=6))
    def the_worker_is_busy(self, kinds: list[str]) -> None:
        self.say(wire.Alive(capacity=6, holding=tuple(self.held)))
        for lease, kind in zip(sorted(self.held), kinds, strict=False):
            group = sampled(lease, kind, self.held.pop(lease))
            self.sent.append(group)
            self.say(wire.Done(group=group))

    @rule(kinds=st.lists(st.sampled_from(list(KINDS)), min_size=6, max_size=60))
    def some_steps(self, kinds: list[str]) -> None:
        for number in range(0, len(kinds), 6):
            self.the_worker_is_busy(kinds[number : number + 6])
            if self.ready() and self.step < STEPS:
                self.a_step(crash=False)
                self.checkpoint()

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def an_old_message_comes_again(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.sent))
        if old.lease not in self.held:
            self.say(wire.Done(group=old))

    @rule()
    def the_worker_starts_anew(self) -> None:
        self.held = {}
        for _ in range(2):
            self.say(wire.Alive(capacity=4, holding=()))

    @precondition(lambda self: self.ready() and self.step < STEPS)
    @rule(crash=st.booleans())
    def a_step(self, crash: bool) -> None:
        groups = self.dispatcher.take(GROUPS)
        step = self.step + 1
        for group in groups:
            assert 0 <= self.step - group.version <= LAG
        if step in self.before:
            assert groups == self.before[step]
        self.steps[step] = groups
        self.dispatcher.advance(step)
        if crash:
            self.back_to(self.saved[-1])
            return
        settle_all(self.ledger, groups, step)
        self.step = step

    @precondition(lambda self: self.step > self.saved[-1])
    @rule()
    def checkpoint(self) -> None:
        self.saved = [*self.saved, self.step][-KEPT:]
        self.ledger.prune(self.saved[0])

    @rule(newest=st.booleans())
    def crash(self, newest: bool) -> None:
        self.back_to(self.saved[-1 if newest else 0])

    @rule()
    def crash_and_all_checkpoints_are_damaged(self) -> None:
        pruned = self.saved[0] > 0
        self.back_to(0)
        if pruned:
            self.before = {}  # gone for good: sampled anew

    def back_to(self, step: int) -> None:
        self.before |= {s: groups for s, groups in self.steps.items() if s > step}
        self.steps = {s: groups for s, groups in self.steps.items() if s <= step}
        self.saved = [s for s in self.saved if s <= step] or [0]
        self.shut()
        self.open(step)

    @invariant()
    def every_rollout_is_somewhere(self) -> None:
        totals = self.ledger.totals()
        counts = dict(self.rows("SELECT fate, COUNT(*) FROM rollouts GROUP BY fate"))
        assert totals["issued"] == sum(n for (n,) in self.rows("SELECT samples FROM leases"))
        assert totals["in_flight"] == counts.pop(None, 0)  # type: ignore[call-overload]
        assert totals["consumed"] == counts.pop("consumed", 0)  # type: ignore[call-overload]
        assert totals["dropped"] == counts

    @invariant()
    def the_ledger_tells_the_surviving_history(self) -> None:
        found = self.rows("SELECT step, lease FROM leases WHERE step IS NOT NULL ORDER BY lease")
        expected = [
            (s, g.lease) for s in sorted(self.steps) for g in self.steps[s] if s <= self.step
        ]
        assert found == expected  # in the order of leases, each once

    @invariant()
    def no_task_is_skipped(self) -> None:
        found = self.rows("SELECT lease, position, task_id FROM leases ORDER BY lease")
        assert found == [(n, n, f"t{n}") for n in range(len(found))]
        last = max((g.lease for s in self.steps.values() for g in s), default=-1)
        assert not self.rows(f"SELECT 1 FROM leases WHERE lease < {last} AND state = 'leased'")


Run.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
test_a_run_with_crashes_loses_nothing_and_repeats_nothing = Run.TestCase
