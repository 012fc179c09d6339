"""A dispatcher over a real ZeroMQ socket, and a worker that answers in an order of its own."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from rltrain.rollout import wire
from rltrain.rollout.dispatch import Dispatcher, DispatchPlan, settle_all
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


def run_all(dispatcher: Dispatcher, only: Sequence[int] = ()) -> list[list[Group]]:
    """Consume all steps, or those in `only`, as the loop does."""
    steps = []
    for step in only or range(1, dispatcher.plan.max_steps + 1):
        groups = dispatcher.take(dispatcher.plan.groups_per_step)
        filtered = dispatcher.plan.filter_truncated
        settle_all(dispatcher.ledger, groups, step, filter_truncated=filtered)
        steps.append(groups)
        dispatcher.advance(step)
    return steps
