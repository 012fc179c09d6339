"""The dispatcher over a real ZeroMQ socket, with a worker that answers in an order of its own."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from rltrain.errors import ChildDied, RltrainError, UserError
from rltrain.rollout import wire
from rltrain.rollout.dispatch import Dispatcher, DispatchPlan, group_seed, settle_all
from rltrain.rollout.ledger import Ledger
from rltrain.types import Group, Task
from tests.makers import make_group, make_task

SIBLINGS = 3
IDLE_MS = 40
Answer = Callable[[wire.Lease], list[wire.ToLearner]]


def done(lease: wire.Lease, lost: tuple[int, ...] = ()) -> list[wire.ToLearner]:
    return [wire.Done(group=make_group([1.0, 0.0, 0.5], lease=lease.lease, lost=lost))]


class FakeWorker(threading.Thread):
    """Asks for leases and answers them; those that are `slow` only once nothing else is to do."""

    def __init__(self, address: str, answer: Answer, slow: Callable[[int], bool]) -> None:
        super().__init__(daemon=True)
        self.answer, self.slow = answer, slow
        self.leases: list[wire.Lease] = []
        self.stopped = False
        self.quit = threading.Event()
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, b"worker-7")
        self._socket.connect(address)

    def run(self) -> None:
        held: list[wire.Lease] = []
        self._send(wire.Want(count=1000))
        while not self.quit.is_set():
            if self._socket.poll(IDLE_MS):
                message = wire.decode_to_worker(self._socket.recv())
                if isinstance(message, wire.Stop):
                    self.stopped = True
                    break
                self.leases.append(message)
                if self.slow(message.lease):
                    held.append(message)
                else:
                    self._reply(message)
            elif held:
                self._reply(held.pop())
        self._socket.close(linger=0)

    def _reply(self, lease: wire.Lease) -> None:
        for message in self.answer(lease):
            self._send(message)

    def _send(self, message: wire.ToLearner) -> None:
        self._socket.send(wire.encode(message))


@contextmanager
def running(
    answer: Answer = done,
    *,
    slow: Callable[[int], bool] = lambda lease: False,
    tasks: Iterator[Task] | None = None,
    **plan: Any,
) -> Iterator[tuple[Dispatcher, FakeWorker]]:
    settings = {
        "groups_per_step": 2, "group_size": SIBLINGS, "max_steps": 6, "max_lag": 0, "seed": 5,
        "max_fault_rate": 0.5, "stall_s": 20.0,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        address = f"ipc://{folder}/queue"
        endless = tasks or (make_task(n) for n in itertools.count())
        dispatcher = Dispatcher(address, endless, ledger, DispatchPlan(**{**settings, **plan}))
        worker = FakeWorker(address, answer, slow)
        dispatcher.start()
        worker.start()
        try:
            yield dispatcher, worker
        finally:
            dispatcher.close()
            worker.join(timeout=1)  # a dispatcher that failed sends no Stop
            worker.quit.set()
            worker.join()
            ledger.close()


def leased_versions(ledger: Ledger) -> dict[int, int]:
    """What the ledger on disk says: the policy version at which each lease was given out."""
    with sqlite3.connect(ledger.path) as db:
        return dict(db.execute("SELECT lease, leased_version FROM leases"))


def run_all(dispatcher: Dispatcher) -> list[list[Group]]:
    """Consume all steps as the loop does."""
    steps = []
    for step in range(1, dispatcher.plan.max_steps + 1):
        groups = dispatcher.take(dispatcher.plan.groups_per_step)
        settle_all(dispatcher.ledger, groups, step)
        steps.append(groups)
        dispatcher.advance(step)
    return steps


@pytest.mark.parametrize("max_lag", [0, 1, 3])
@pytest.mark.parametrize(
    "slow", [lambda lease: False, lambda lease: lease % 3 == 0], ids=["prompt", "stragglers"]
)
def test_no_group_is_consumed_more_than_max_lag_versions_after_it_was_leased(
    max_lag: int, slow: Callable[[int], bool]
) -> None:
    with running(max_lag=max_lag, slow=slow) as (dispatcher, worker):
        steps = run_all(dispatcher)
        versions = leased_versions(dispatcher.ledger)
        totals = dispatcher.ledger.totals()
    # Step k, counted from 0, trains version k.
    lags = [k - versions[g.lease] for k, groups in enumerate(steps) for g in groups]
    assert max(lags) == max_lag  # the bound is kept, and used
    assert min(lags) >= 0
    assert totals == {"issued": 36, "consumed": 36, "dropped": {}, "in_flight": 0}
    assert len(worker.leases) == 12  # nothing is sampled that no step will consume


def test_groups_come_in_the_order_of_their_leases() -> None:
    with running(max_lag=3, slow=lambda lease: lease in (0, 5)) as (dispatcher, _):
        order = [g.lease for groups in run_all(dispatcher) for g in groups]
    assert order == list(range(12))


def test_every_lease_is_another_task_with_a_seed_of_its_own() -> None:
    with running(max_lag=1) as (dispatcher, worker):
        run_all(dispatcher)
    assert [lease.task.id for lease in worker.leases] == [f"t{n}" for n in range(12)]
    assert [lease.seed for lease in worker.leases] == [group_seed(5, n) for n in range(12)]
    assert {lease.samples for lease in worker.leases} == {SIBLINGS}
    siblings = {
        group_seed(run, n) + sibling for run in (0, 1) for n in range(50) for sibling in range(64)
    }
    assert len(siblings) == 2 * 50 * 64  # no two rollouts share one


@pytest.mark.parametrize("max_lag", [0, 2])
def test_a_group_that_the_system_lost_is_replaced_by_another_task(max_lag: int) -> None:
    def answer(lease: wire.Lease) -> list[wire.ToLearner]:
        return done(lease, lost=(0, 1) if lease.lease % 4 == 1 else ())

    with running(answer, max_lag=max_lag, slow=lambda lease: lease % 5 == 0) as (dispatcher, _):
        steps = run_all(dispatcher)
        versions = leased_versions(dispatcher.ledger)
        totals = dispatcher.ledger.totals()
    order = [g.lease for groups in steps for g in groups]
    assert order == [n for n in range(16) if n % 4 != 1]
    assert max(k - versions[g.lease] for k, gs in enumerate(steps) for g in gs) <= max_lag
    assert totals["consumed"] == 36
    assert totals["dropped"] == {"alone_in_group": 4, "fault:engine": 8}
    assert totals["issued"] == 48


def test_too_many_faults_stop_the_run_and_say_so() -> None:
    with (
        running(lambda lease: done(lease, lost=(0, 1, 2)), stall_s=5) as (dispatcher, _),
        pytest.raises(RltrainError, match=r"more than rollout\.max_fault_rate=0\.5"),
    ):
        dispatcher.take(2)


def test_too_many_faults_stop_the_run_even_if_every_group_can_still_be_trained_on() -> None:
    with (
        running(lambda lease: done(lease, lost=(1,)), max_fault_rate=0.3) as (dispatcher, _),
        pytest.raises(RltrainError, match="2 of the last 6 rollouts were lost"),
    ):
        run_all(dispatcher)


def test_faults_below_the_limit_do_not_stop_the_run() -> None:
    with running(lambda lease: done(lease, lost=(1,)), max_fault_rate=0.4) as (dispatcher, _):
        run_all(dispatcher)
        totals = dispatcher.ledger.totals()
    assert totals["consumed"] == 24
    assert totals["dropped"] == {"fault:engine": 12}


def test_a_worker_that_gives_up_stops_the_run_with_its_reason() -> None:
    with (
        running(lambda lease: [wire.Broken(reason="KeyError: 'gold'")]) as (dispatcher, _),
        pytest.raises(ChildDied, match="worker-7 gave up: KeyError: 'gold'"),
    ):
        dispatcher.take(2)


def test_a_run_without_groups_is_stopped_as_stalled() -> None:
    with (
        running(lambda lease: [], stall_s=0.2) as (dispatcher, _),
        pytest.raises(ChildDied, match=r"no group arrived .* \(0 of 2 are here\)"),
    ):
        dispatcher.take(2)


def test_a_group_that_arrives_twice_counts_once() -> None:
    with running(lambda lease: done(lease) * 2, max_lag=1) as (dispatcher, _):
        order = [g.lease for groups in run_all(dispatcher) for g in groups]
        totals = dispatcher.ledger.totals()
    assert order == list(range(12))
    assert totals["consumed"] == totals["issued"] == 36


def test_a_train_split_that_ends_is_the_environment_s_mistake() -> None:
    with (
        running(tasks=iter([make_task(0), make_task(1)])) as (dispatcher, _),
        pytest.raises(UserError, match="ended after 2 tasks"),
    ):
        run_all(dispatcher)


def test_nonsense_from_a_worker_stops_the_run() -> None:
    nonsense: Any = wire.Stop()  # only a learner says this
    with (
        running(lambda lease: [nonsense]) as (dispatcher, _),
        pytest.raises(msgspec.ValidationError, match="Stop"),
    ):
        dispatcher.take(2)


def test_workers_are_told_to_stop_and_their_counters_are_kept() -> None:
    def answer(lease: wire.Lease) -> list[wire.ToLearner]:
        return [wire.Done(group=make_group([1.0, 0.0, 0.5], lease=lease.lease), counters={"x": 4})]

    with running(answer) as (dispatcher, worker):
        dispatcher.take(2)
        assert dispatcher.counters == {"worker-7": {"x": 4}}
    assert worker.stopped
