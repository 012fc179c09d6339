"""The learner's side of the rollouts: leases tasks to workers and buffers what comes back.

    workers --Want--> [ thread: lag bound, ledger ] --Lease--> workers
    workers --Done--> [ thread: receive, buffer   ] --take()--> loop

Staleness is bounded where work is given out, not repaired where it is used: with B groups a step
and v steps done, at most (v + 1 + max_lag) * B groups have ever been leased (those that were lost
and replaced aside), and they are consumed in the order of their leases, so a group is consumed at
most `max_lag` versions after it was begun. Taking whichever came back first would break that bound
for a slow group, and favour short answers. max_lag 0 is the synchronous run.

With dynamic sampling (`sieve`), a group that teaches nothing is replaced too, as soon as all leases
before it are decided.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from rltrain.batch.samples import is_voter, live_members, voters
from rltrain.errors import ChildDied, RltrainError, UserError
from rltrain.rollout import wire
from rltrain.rollout.ledger import Ledger
from rltrain.rollout.sieve import Sieve
from rltrain.types import Group, Task

POLL_MS = 50
FAULT_WINDOW_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchPlan:
    """How many groups, how stale, and when to give up."""

    groups_per_step: int
    group_size: int
    max_steps: int
    max_lag: int
    seed: int
    max_fault_rate: float
    stall_s: float = 300.0
    """Longest wait without a single group before the run is stopped as stalled."""
    filter_truncated: bool = False
    """Truncated answers are not trained on; the ledger drops them as `overlong`."""
    fewest: int = 2
    """Siblings without which a group says nothing."""
    max_replaced: int = 0
    """Groups without spread that are replaced for one step at most; 0 keeps them all."""
    greedy: bool = False
    """A group comes with a greedy answer, which is issued and counted but never consumed."""

    @property
    def rollouts(self) -> int:
        """Rollouts that one lease issues."""
        return self.group_size + self.greedy


class Dispatcher:
    """Implements `protocols.GroupSource` over ZeroMQ. Start it, `take` from it, `close` it."""

    def __init__(
        self, address: str, tasks: Iterator[Task], ledger: Ledger, plan: DispatchPlan
    ) -> None:
        self.ledger = ledger
        self.plan = plan
        self.counters: dict[str, dict[str, float]] = {}
        """Latest cumulative counters of each worker."""
        self.sampling: dict[str, float] = {}
        """What dynamic sampling did for the groups that were taken last."""
        self._tasks = tasks
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.bind(address)
        if address.startswith("ipc://"):
            Path(address.removeprefix("ipc://")).chmod(0o600)
        self._wanted: deque[bytes] = deque()
        self._sieve = Sieve(plan.groups_per_step, plan.max_replaced, plan.filter_truncated)
        self._here: list[Group] = []
        """Groups that are back while an older lease is still open."""
        self._ready: list[Group] = []
        """Groups for the next steps, in the order of their leases."""
        self._arrived = 0
        self._taken = 0
        self._open: set[int] = set()
        """Leases whose group is not back yet."""
        self._leased = 0
        self._replaced = 0
        self._version = 0
        self._closing = False
        self._error: Exception | None = None
        self._recent: deque[tuple[int, int]] = deque(
            maxlen=FAULT_WINDOW_STEPS * plan.groups_per_step
        )
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="dispatch", daemon=True)

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
            while len(self._ready) < count:
                if self._error:
                    raise self._error
                if self._arrived > arrived:
                    arrived = self._arrived
                    deadline = time.monotonic() + self.plan.stall_s
                if time.monotonic() > deadline:
                    here = len(self._ready) + len(self._here)
                    raise ChildDied(
                        f"no group arrived for {self.plan.stall_s:.0f} s "
                        f"({here} of {count} are here); see logs/worker-*.log"
                    )
                self._changed.wait(timeout=1.0)
            taken, self._ready = self._ready[:count], self._ready[count:]
            self.sampling = self._sieve.metrics(self._taken // self.plan.groups_per_step)
            self._taken += count
            return taken

    def close(self) -> None:
        """Tell workers to stop, and end the thread."""
        self._closing = True
        self._thread.join(timeout=10)
        self._socket.close(linger=500)

    def _serve(self) -> None:
        try:
            workers: set[bytes] = set()
            while not self._closing:
                if self._socket.poll(POLL_MS):
                    identity, payload = self._socket.recv_multipart()
                    workers.add(identity)
                    self._handle(identity, wire.decode_to_learner(payload))
                self._lease_out()
            for identity in workers:
                self._socket.send_multipart([identity, wire.encode(wire.Stop())])
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def _handle(self, identity: bytes, message: wire.ToLearner) -> None:
        if isinstance(message, wire.Want):
            self._wanted.extend([identity] * message.count)
        elif isinstance(message, wire.Broken):
            self._fail(ChildDied(f"{identity.decode()} gave up: {message.reason}"))
        elif self.ledger.receive(message.group):
            self.counters[identity.decode()] = message.counters
            self._accept(message.group)

    def _accept(self, group: Group) -> None:
        faults = len(group.faults)
        self._recent.append((faults, faults + len(group.members)))
        with self._changed:
            self._open.remove(group.lease)
            self._arrived += 1
            if len(live_members(group)) < self.plan.fewest:  # nobody to compare with
                self._replace(group, "alone_in_group")
            elif self.plan.greedy and (group.greedy is None or group.greedy.dropped):
                self._replace(group, "no_baseline")
            else:
                self._here.append(group)
            self._decide()
            self._changed.notify_all()
        self._check_fault_rate()

    def _decide(self) -> None:
        """Pass on the groups that no lease still open comes before, oldest first."""
        first_open = min(self._open, default=self._leased)
        self._here.sort(key=lambda group: group.lease)
        while self._here and self._here[0].lease < first_open:
            group = self._here.pop(0)
            if self._sieve.keep(group):
                self._ready.append(group)
            else:
                self._replace(group, "zero_variance")

    def _replace(self, group: Group, reason: str) -> None:
        """Give a group up; another task takes its place."""
        plan = self.plan
        settle(
            self.ledger,
            group,
            None,
            reason=reason,
            filter_truncated=plan.filter_truncated,
            fewest=plan.fewest,
        )
        self._replaced += 1

    def _check_fault_rate(self) -> None:
        lost, seen = (sum(column) for column in zip(*self._recent, strict=True))
        enough = len(self._recent) >= self.plan.groups_per_step
        if enough and lost / seen > self.plan.max_fault_rate:
            raise RltrainError(
                f"{lost} of the last {seen} rollouts were lost to system faults, more than "
                f"rollout.max_fault_rate={self.plan.max_fault_rate}; see events.jsonl"
            )

    def _lease_out(self) -> None:
        plan = self.plan
        with self._changed:
            ahead = min(self._version + 1 + plan.max_lag, plan.max_steps) * plan.groups_per_step
            allowed = ahead + self._replaced - self._leased
        for _ in range(min(allowed, len(self._wanted))):
            identity = self._wanted.popleft()
            task = next(self._tasks, None)
            if task is None:
                raise UserError(
                    f"the environment's train split ended after {self._leased} tasks; it must be "
                    "endless (repeat its tasks)"
                )
            number = self._leased
            self.ledger.lease(number, task.id, plan.rollouts, self._version, identity.decode())
            with self._changed:
                self._open.add(number)
                self._leased += 1
            lease = wire.Lease(
                lease=number,
                task=task,
                samples=plan.group_size,
                seed=group_seed(plan.seed, number),
            )
            self._socket.send_multipart([identity, wire.encode(lease)])


def group_seed(run_seed: int, lease: int) -> int:
    """Seed of a group's sampling. The engine adds the sibling's index, so groups stand apart by
    more than any group size: no two rollouts of a run, or of runs with near seeds, share one."""
    return (run_seed * 1_000_003 + lease) * 4099 % 2**31


def settle(
    ledger: Ledger,
    group: Group,
    step: int | None,
    *,
    reason: str = "alone_in_group",
    filter_truncated: bool = False,
    fewest: int = 2,
) -> None:
    """Enter a group's fate: those with a vote consumed at `step`, the others dropped by reason.

    Without a step, or with fewer than `fewest` voters, the voters are dropped for `reason`.
    A greedy answer is a baseline and never consumed: `greedy_baseline`."""
    voting = len(voters(group, filter_truncated))
    consumed = voting if step is not None and voting >= fewest else 0
    dropped = Counter(f"fault:{fault.kind}" for fault in group.faults)
    if group.greedy is not None:
        dropped["greedy_baseline"] += 1
    for member in group.members:
        if member.dropped:
            name = next(flag.detector for flag in member.flags if flag.action == "drop")
            dropped[f"detector:{name}"] += 1
        elif not is_voter(member, filter_truncated):
            dropped["overlong"] += 1
        elif not consumed:
            dropped[reason] += 1
    ledger.settle(group.lease, step=step, consumed=consumed, dropped=dropped)


def settle_all(
    ledger: Ledger,
    groups: Sequence[Group],
    step: int,
    *,
    filter_truncated: bool = False,
    fewest: int = 2,
) -> None:
    """Enter the fate of every group that a step consumed."""
    for group in groups:
        settle(ledger, group, step, filter_truncated=filter_truncated, fewest=fewest)
