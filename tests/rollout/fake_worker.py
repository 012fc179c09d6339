"""A dispatcher over a real ZeroMQ socket, and a worker that answers in an order of its own."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import zmq

from rltrain.rollout import wire
from rltrain.rollout.dispatch import Dispatcher
from rltrain.rollout.ledger import Ledger
from rltrain.rollout.plan import DispatchPlan
from rltrain.rollout.settle import settle_all
from rltrain.types import Group, Task
from tests.makers import make_group, make_task

SIBLINGS = 3
IDLE_MS = 40
Answer = Callable[[wire.Lease], list[wire.ToLearner]]


def done(lease: wire.Lease, lost: tuple[int, ...] = ()) -> list[wire.ToLearner]:
    return [wire.Done(group=make_group([1.0, 0.0, 0.5], lease=lease.lease, lost=lost))]


class FakeWorker(threading.Thread):
    """Asks for leases and answers them; those that are `slow` only once nothing else is to do."""

    def __init__(
        self, address: str, answer: Answer = done, slow: Callable[[int], bool] = lambda lease: False
    ) -> None:
        super().__init__(daemon=True)
        self.answer, self.slow = answer, slow
        self.leases: list[wire.Lease] = []
        self.deaf: set[int] = set()
        """Leases whose next message never arrives."""
        self.stopped = False
        self.quit = threading.Event()
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, b"worker-7")
        self._socket.connect(address)

    def run(self) -> None:
        held: list[wire.Lease] = []
        while not self.quit.is_set():
            holding = tuple(lease.lease for lease in held)
            self._send(wire.Alive(capacity=1000, holding=holding))
            if self._socket.poll(IDLE_MS):
                message = wire.decode_to_worker(self._socket.recv())
                if isinstance(message, wire.Stop):
                    self.stopped = True
                    break
                if message.lease in self.deaf:
                    self.deaf.remove(message.lease)
                    continue
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
    folder: str | None = None,
    step: int = 0,
    worker: FakeWorker | None = None,
    notice: Callable[[str, str], None] = lambda kind, text: None,
    **plan: Any,
) -> Iterator[tuple[Dispatcher, FakeWorker]]:
    settings = {
        "groups_per_step": 2, "group_size": SIBLINGS, "max_steps": 6, "max_lag": 0, "seed": 5,
        "max_fault_rate": 0.5, "stall_s": 20.0,
    }  # fmt: skip
    # A socket's path must be short.
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        ledger = Ledger(Path(place) / "ledger.sqlite")
        address = f"ipc://{place}/queue"
        dispatcher = Dispatcher(
            address,
            tasks or (make_task(n) for n in itertools.count()),
            ledger,
            DispatchPlan(**{**settings, **plan}),
            step=step,
            notice=notice,
        )
        worker = worker or FakeWorker(address, answer, slow)
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
