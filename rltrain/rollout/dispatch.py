"""The learner's side of the rollouts: leases tasks to workers and buffers what comes back.

    workers --Alive--> [ thread: lag bound, ledger ] --Lease--> workers
    workers --Done---> [ thread: receive, buffer   ] --take()--> loop

Staleness is bounded where work is given out, not repaired where it is used: with B groups a step
and v steps done, only leases below (v + 1 + max_lag) * B go out (those that were lost and replaced
aside), and they are consumed in the order of their numbers, so a group is consumed at most
`max_lag` versions after it was begun. Taking whichever came back first would break that bound for
a slow group, and favour short answers. max_lag 0 is the synchronous run.

A dispatcher goes on where its ledger stands after `rewind`: groups that are back go through the
same decisions again, in the same order; leases that are not go out again under their old numbers.

While the system loses too many rollouts nothing new is begun; see `fault_watch`.

With dynamic sampling (`sieve`), a group that teaches nothing is replaced too, as soon as all leases
before it are decided.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from rltrain.errors import ChildDied
from rltrain.rollout import wire
from rltrain.rollout.fault_watch import FaultWatch
from rltrain.rollout.intake import Intake
from rltrain.rollout.ledger import Ledger
from rltrain.rollout.plan import DispatchPlan, group_seed
from rltrain.rollout.roster import Roster
from rltrain.rollout.tasks import TaskStream
from rltrain.types import Group, Task

POLL_MS = 50


class Dispatcher:
    """Implements `protocols.GroupSource` over ZeroMQ. Start it, `take` from it, `close` it."""

    def __init__(
        self,
        address: str,
        tasks: Iterator[Task],
        ledger: Ledger,
        plan: DispatchPlan,
        *,
        step: int = 0,
        notice: Callable[[str, str], None] = lambda kind, text: None,
    ) -> None:
        """`step`: of the checkpoint that training goes on from. `notice` is told, as kind and text,
        of what the run's events should tell.

        Raises `UserError` if the tasks are not those that the ledger knows."""
        self.ledger = ledger
        self.plan = plan
        self.notice = notice
        self.counters: dict[str, dict[str, float]] = {}
        """Latest cumulative counters of each worker."""
        self.sampling: dict[str, float] = {}
        """What dynamic sampling did for the groups that were taken last."""
        rewound = ledger.rewind(step)
        self._tasks = TaskStream(tasks, rewound.next_lease, dict(rewound.pending))
        self._again = deque(lease for lease, _ in rewound.pending)
        """Leases to give out once more."""
        self._unsent = set(self._again)
        """Those of them that this dispatcher has not given out itself."""
        self._version = step
        self._arrived = 0
        self._intake = Intake(ledger, plan, step, rewound)
        self._intake.out |= self._tasks.kept
        self._roster = Roster()
        self._watch = FaultWatch(
            plan.groups_per_step,
            plan.max_fault_rate,
            pause_s=plan.pause_s,
            max_pauses=plan.max_pauses,
        )
        self._closing = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._socket = _bind(address)
        self._thread = threading.Thread(target=self._serve, name="dispatch", daemon=True)

    @property
    def paused(self) -> bool:
        """Whether nothing new is begun because the system loses too many rollouts."""
        return self._watch.paused(time.monotonic())

    def start(self) -> None:
        self._thread.start()

    def advance(self, version: int) -> None:
        """The engines serve `version` now: as many steps are done, and more may be leased."""
        with self._changed:
            self._version = version

    def take(self, count: int) -> list[Group]:
        """Wait until the `count` oldest leases are back, and return their groups in lease order.

        Raises:
            ChildDied: if a worker gave up, or no group arrived for `stall_s` seconds.
            RltrainError: if too many rollouts were lost to system faults.
        """
        with self._changed:
            deadline = time.monotonic() + self.plan.stall_s
            arrived = self._arrived
            self._intake.read(count)
            while len(self._intake.ready) < count:
                if self._error:
                    raise self._error
                if self._arrived > arrived or self._watch.paused(time.monotonic()):
                    arrived = self._arrived
                    deadline = time.monotonic() + self.plan.stall_s
                if time.monotonic() > deadline:
                    raise ChildDied(
                        f"no group arrived for {self.plan.stall_s:.0f} s ({self._intake.here} of "
                        f"{count} are here); see logs/worker-*.log"
                    )
                self._changed.wait(timeout=1.0)
            taken, self.sampling = self._intake.take(count)
            return taken

    def close(self) -> None:
        """Tell workers to stop, and end the thread."""
        self._closing = True
        self._thread.join(timeout=10)
        self._socket.close(linger=500)

    def _serve(self) -> None:
        try:
            while not self._closing:
                if self._socket.poll(POLL_MS):
                    identity, payload = self._socket.recv_multipart()
                    self._handle(identity, wire.decode_to_learner(payload))
                self._lease_out()
        except Exception as error:
            self._fail(error)
        finally:
            for identity in self._roster.names:
                self._socket.send_multipart([identity, wire.encode(wire.Stop())])

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _handle(self, identity: bytes, message: wire.ToLearner) -> None:
        if isinstance(message, wire.Alive):
            self._hear(identity, message)
        elif isinstance(message, wire.Broken):
            self._fail(ChildDied(f"{identity.decode()} gave up: {message.reason}"))
        else:
            lease = message.group.lease
            self._roster.back(lease)
            # What a worker began for a learner that is gone may be of a policy that is gone too.
            if lease not in self._unsent and self.ledger.receive(message.group):
                self.counters[identity.decode()] = message.counters
                self._accept(message.group)

    def _hear(self, identity: bytes, message: wire.Alive) -> None:
        now = time.monotonic()
        lost = self._roster.hear(identity, message.capacity, message.holding, now)
        lost = [lease for lease in lost if lease in self._intake.out]
        if lost:
            self._again = deque(sorted({*self._again, *lost}))
            text = f"{identity.decode()} does not know {len(lost)} lease(s) that it was given"
            self.notice("leased_again", f"{text}; they go out again")

    def _accept(self, group: Group) -> None:
        with self._changed:
            self._arrived += 1
            self._intake.add(group)
            self._changed.notify_all()
        faults = len(group.faults)
        said = self._watch.add(
            group.lease, faults, faults + len(group.members), time.monotonic()
        )
        if said:
            self.notice(*said)

    def _lease_out(self) -> None:
        plan = self.plan
        with self._changed:
            version = self._version
            ahead = min(version + 1 + plan.max_lag, plan.max_steps) * plan.groups_per_step
            limit = ahead + self._intake.replaced
        while (
            self._watch.admits(time.monotonic())
            and (identity := self._roster.idlest()) is not None
        ):
            while self._again and self._again[0] not in self._intake.out:
                self._again.popleft()  # came back after all
            if self._again and self._again[0] < limit:
                number = self._again.popleft()
                self.ledger.lease_again(number, version, identity.decode())
            elif self._intake.leased < limit:
                number = self._intake.leased
                self._lease_next(number, version, identity)
            else:
                return
            lease = wire.Lease(
                lease=number,
                task=self._intake.out[number],
                samples=plan.group_size,
                seed=group_seed(plan.seed, number),
            )
            self._unsent.discard(number)
            self._watch.began(number)
            self._roster.send(identity, number, time.monotonic())
            self._socket.send_multipart([identity, wire.encode(lease)])

    def _lease_next(self, number: int, version: int, identity: bytes) -> None:
        task = self._tasks.next()
        self.ledger.lease(number, task.id, self.plan.rollouts, version, identity.decode())
        with self._changed:
            self._intake.out[number] = task
            self._intake.leased += 1


def _bind(address: str) -> zmq.Socket[bytes]:
    """A socket at which a worker that was started again takes the place of its former self."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    socket.bind(address)
    if address.startswith("ipc://"):
        Path(address.removeprefix("ipc://")).chmod(0o600)
    return socket
