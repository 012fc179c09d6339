"""Workers, messages and learners that vanish and come back, over real sockets and real files."""

from __future__ import annotations

import itertools
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from rltrain.errors import UserError
from rltrain.rollout import roster, wire
from rltrain.rollout.dispatch import Dispatcher
from rltrain.rollout.ledger import Ledger
from rltrain.rollout.plan import DispatchPlan
from rltrain.types import Group, Task
from tests.makers import make_group, make_task
from tests.rollout.fake_worker import (
    SIBLINGS,
    FakeWorker,
    done,
    leased_versions,
    run_all,
    running,
)

DEADLINE_S = 20.0
PROCESS = """
import sys, time, zmq
from rltrain.rollout import wire
from rltrain.types import Episode, Group, Judged, Screened, Turn
address, mode = sys.argv[1:]
socket = zmq.Context.instance().socket(zmq.DEALER)
socket.setsockopt(zmq.IDENTITY, b"worker-0")
socket.connect(address)
held = []
def member(task, i):
    turn = Turn(prompt_ids=(1,), completion_ids=(2,), logprobs=(-1.0,), version=0,
                stop_reason="stop", text="x")
    episode = Episode(task=task, sample=i, turns=(turn,), answer="x", ended="answered")
    return Screened(judged=Judged(episode=episode, verdicts=(), reward=float(i), truth=None),
                    flags=(), reward=float(i))
while True:
    socket.send(wire.encode(wire.Alive(capacity=8, holding=tuple(held))))
    if not socket.poll(30):
        continue
    lease = wire.decode_to_worker(socket.recv())
    if isinstance(lease, wire.Stop):
        break
    if mode == "hangs":
        held.append(lease.lease)
        print(lease.lease, flush=True)
    else:
        members = tuple(member(lease.task, i) for i in range(lease.samples))
        group = Group(lease=lease.lease, task=lease.task, members=members)
        socket.send(wire.encode(wire.Done(group=group)))
"""


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as path:  # a socket's path must be short
        yield path


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker does not know is lost sooner than in a run."""
    monkeypatch.setattr(roster, "GRACE_S", 0.5)


def rows(folder: str, query: str) -> list[tuple[int, ...]]:
    db = sqlite3.connect(Path(folder) / "ledger.sqlite")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def process(folder: str, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, f"ipc://{folder}/queue", mode]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def idle() -> FakeWorker:
    """A worker that reaches nobody: the one under test is another process."""
    return FakeWorker("inproc://nobody")


def order_of(steps: list[list[Group]]) -> list[int]:
    return [group.lease for groups in steps for group in groups]


def test_what_a_killed_worker_held_is_sampled_by_its_successor(
    folder: str, short_grace: None
) -> None:
    said: list[tuple[str, str]] = []
    notice = lambda kind, text: said.append((kind, text))  # noqa: E731
    plan = {"groups_per_step": 2, "max_steps": 2, "notice": notice}
    with running(folder=folder, worker=idle(), **plan) as (dispatcher, _):
        first = process(folder, "hangs")
        assert first.stdout is not None
        assert [first.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]
        first.send_signal(signal.SIGKILL)
        first.wait(DEADLINE_S)
        first.stdout.close()
        second = process(folder, "works")
        try:
            steps = run_all(dispatcher)
        finally:
            dispatcher.close()
            second.wait(DEADLINE_S)
            assert second.stdout is not None
            second.stdout.close()
        totals = dispatcher.ledger.totals()
    assert order_of(steps) == [0, 1, 2, 3]
    assert totals == {"issued": 12, "consumed": 12, "dropped": {}, "in_flight": 0}
    assert [n for (n,) in rows(folder, "SELECT attempts FROM leases")] == [2, 2, 1, 1]
    assert said == [("leased_again", "worker-0 does not know 2 lease(s) that it was given; "
                                     "they go out again")]  # fmt: skip


def test_a_successor_takes_over_while_the_old_connection_still_stands(
    folder: str, short_grace: None
) -> None:
    stuck: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    stuck.setsockopt(zmq.IDENTITY, b"worker-7")
    stuck.connect(f"ipc://{folder}/queue")
    with running(folder=folder, worker=idle(), max_steps=1) as (dispatcher, _):
        stuck.send(wire.encode(wire.Alive(capacity=2, holding=())))
        for _ in range(2):
            assert stuck.poll(1000 * DEADLINE_S)
            stuck.recv()
        second = FakeWorker(f"ipc://{folder}/queue")
        second.start()
        assert order_of(run_all(dispatcher)) == [0, 1]
        dispatcher.close()
        second.join(DEADLINE_S)
        assert second.stopped
    stuck.close(linger=0)


def test_a_lease_that_never_arrived_goes_out_again_under_its_number_and_seed(
    folder: str, short_grace: None
) -> None:
    worker = FakeWorker(f"ipc://{folder}/queue")
    worker.deaf = {1, 2}
    with running(folder=folder, worker=worker, max_lag=1) as (dispatcher, _):
        steps = run_all(dispatcher)
    assert order_of(steps) == list(range(12))
    assert sorted(lease.lease for lease in worker.leases) == list(range(12))
    by_number = {lease.lease: lease for lease in worker.leases}
    assert by_number[1].task.id == "t1"
    again = rows(folder, "SELECT lease FROM leases WHERE attempts > 1")
    assert again == [(1,), (2,)]


def test_what_a_slow_worker_still_holds_is_left_to_it(folder: str, short_grace: None) -> None:
    with running(folder=folder, slow=lambda lease: lease % 2 == 0, max_lag=1) as (dispatcher, _):
        run_all(dispatcher)
    assert rows(folder, "SELECT MAX(attempts) FROM leases") == [(1,)]


def fickle() -> Callable[[wire.Lease], list[wire.ToLearner]]:
    """Answers that are never the same twice: another sampling would show."""
    count = itertools.count(1)

    def answer(lease: wire.Lease) -> list[wire.ToLearner]:
        lost = (0, 1) if lease.lease % 5 == 3 else ()
        rewards = [1.0, next(count) / 1000, 0.5]
        return [wire.Done(group=make_group(rewards, lease=lease.lease, lost=lost))]

    return answer


@pytest.mark.parametrize("max_lag", [0, 2])
def test_a_learner_that_comes_back_gets_the_same_groups_and_then_new_ones(
    folder: str, max_lag: int
) -> None:
    plan = {"max_lag": max_lag, "slow": lambda lease: lease % 4 == 0, "folder": folder}
    answer = fickle()
    with running(answer, **plan) as (dispatcher, _):
        before = run_all(dispatcher, [1, 2, 3])
        lost = dispatcher.take(2)  # the learner dies in this step
    with running(answer, step=1, **plan) as (dispatcher, _):
        after = run_all(dispatcher, range(2, 7))
        versions = leased_versions(dispatcher.ledger)
        totals = dispatcher.ledger.totals()
    assert after[:3] == [*before[1:], lost]
    order = order_of([before[0], *after])
    assert order == [n for n in range(16) if n % 5 != 3][:12]  # each once, in order, none skipped
    lags = [k - versions[g.lease] for k, groups in enumerate(after, start=1) for g in groups]
    assert max(lags) <= max_lag
    assert totals["consumed"] == 12 * SIBLINGS
    assert totals["in_flight"] == 0
    assert rows(folder, "SELECT step, rewound FROM resumes") == [(1, 4)]
    assert rows(folder, "SELECT position FROM leases") == [(n,) for n in range(len(versions))]


def test_after_going_back_nothing_is_leased_beyond_the_bound(folder: str) -> None:
    with running(folder=folder, max_lag=1) as (dispatcher, _):
        run_all(dispatcher, [1, 2, 3])
    db = sqlite3.connect(Path(folder) / "ledger.sqlite")
    with db:  # as if no group had been kept: everything has to be sampled again
        db.execute("DELETE FROM groups")
    db.close()
    worker = FakeWorker(f"ipc://{folder}/queue")
    with running(folder=folder, worker=worker, max_lag=1, step=1) as (dispatcher, _):
        for step in range(2, 7):
            most = min(step - 1 + 1 + 1, 6) * 2
            wait_for(lambda most=most: len(worker.leases) == most - 2)  # type: ignore[misc]
            assert max(lease.lease for lease in worker.leases) == most - 1
            run_all(dispatcher, [step])
    assert [lease.lease for lease in worker.leases] == list(range(2, 12))


def test_groups_of_a_history_that_is_lost_are_not_used(folder: str) -> None:
    with running(folder=folder, max_lag=1) as (dispatcher, _):
        run_all(dispatcher, [1, 2, 3])
        dispatcher.ledger.prune(2)
    with running(fickle(), folder=folder, max_lag=1) as (dispatcher, worker):
        run_all(dispatcher, [1])
    assert {0, 1} <= {lease.lease for lease in worker.leases}
    ledger = Ledger(Path(folder) / "ledger.sqlite")
    back = ledger.rewind(0).back
    attempts = dict(rows(folder, "SELECT lease, attempts FROM leases WHERE lease IN (4, 5)"))
    assert all(lease not in back or attempts[lease] > 1 for lease in (4, 5))
    ledger.close()


def test_an_answer_to_a_learner_that_is_gone_does_not_count(folder: str) -> None:
    with running(lambda lease: [], folder=folder) as (_, worker):
        wait_for(lambda: len(worker.leases) == 2)
    tasks = (make_task(n) for n in itertools.count())
    ledger = Ledger(Path(folder) / "ledger.sqlite")
    plan = DispatchPlan(groups_per_step=2, group_size=SIBLINGS, max_steps=2, max_lag=0, seed=5,
                        max_fault_rate=0.5)  # fmt: skip
    dispatcher = Dispatcher(f"ipc://{folder}/again", tasks, ledger, plan)
    (late,) = done(wire.Lease(lease=0, task=make_task(0), samples=SIBLINGS, seed=1))
    dispatcher._handle(b"worker-7", late)
    assert dispatcher._intake.here == 0
    dispatcher._handle(b"worker-7", wire.Alive(capacity=4, holding=()))
    dispatcher._lease_out()
    dispatcher._handle(b"worker-7", late)
    assert dispatcher._intake.here == 1
    dispatcher._socket.close(linger=0)
    ledger.close()


def test_other_tasks_than_the_run_began_with_are_refused(folder: str) -> None:
    with running(lambda lease: [], folder=folder) as (_, worker):
        wait_for(lambda: len(worker.leases) == 2)
    others: Iterator[Task] = (make_task(n) for n in itertools.count(100))
    with (
        pytest.raises(UserError, match="task 0 is 't100' now and was 't0' when the run began"),
        running(folder=folder, tasks=others),
    ):
        pass


def test_a_ledger_that_ends_before_the_checkpoint_is_refused(folder: str) -> None:
    with running(folder=folder) as (dispatcher, _):
        run_all(dispatcher, [1, 2])
    with (
        pytest.raises(UserError, match=r"ledger\.sqlite knows 2 of the 3 steps"),
        running(folder=folder, step=3),
    ):
        pass
