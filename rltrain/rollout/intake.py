"""Groups that come back, in the order of their leases: which are used, and which are replaced.

Nothing is decided about a group before every lease ahead of it is back, except that it lost too
many siblings; so no answer is favoured for being quick, and the same groups lead to the same
decisions whenever they arrive. Groups that the ledger kept from before a restart are read when
their turn comes: a run without checkpoints may have kept more than memory holds.
"""

from __future__ import annotations

from collections import deque

from rltrain.batch.samples import live_members
from rltrain.rollout.ledger import Ledger
from rltrain.rollout.plan import DispatchPlan
from rltrain.rollout.rewind import Rewound
from rltrain.rollout.settle import ALONE, settle
from rltrain.rollout.sieve import Sieve
from rltrain.types import Group, Task


class Intake:
    """What is out, what waits for older leases, and what is ready for the next steps."""

    def __init__(self, ledger: Ledger, plan: DispatchPlan, step: int, rewound: Rewound) -> None:
        self.ledger = ledger
        self.plan = plan
        self.out: dict[int, Task] = {}
        """Leases whose group is not back yet."""
        self.ready: list[Group] = []
        """Groups for the next steps, in the order of their leases."""
        self.replaced = rewound.replaced
        """Leases that were given up; as many others take their place."""
        self.leased = rewound.next_lease
        """Lease numbers given out so far."""
        self._kept = deque(rewound.back)
        """Leases whose groups are in the ledger and were not read yet."""
        self._taken = step * plan.groups_per_step
        self._waiting: list[Group] = []
        """Groups that are back while an older lease is still out."""
        self._sieve = Sieve(
            plan.groups_per_step, plan.max_replaced, plan.filter_truncated, kept=self._taken
        )

    @property
    def here(self) -> int:
        """Groups that are back and not taken yet."""
        return len(self.ready) + len(self._waiting) + len(self._kept)

    def read(self, count: int) -> None:
        """Take in groups that the ledger kept, until `count` are ready or none is left."""
        while self._kept and len(self.ready) < count:
            self.add(self.ledger.group(self._kept.popleft()))

    def add(self, group: Group) -> None:
        """Take in a group that is back, and pass on those that no lease still out comes before."""
        self.out.pop(group.lease, None)
        if len(live_members(group)) < self.plan.fewest:  # nobody to compare with
            self._replace(group, ALONE)
        elif self.plan.greedy and (group.greedy is None or group.greedy.dropped):
            self._replace(group, "no_baseline")
        else:
            self._waiting.append(group)
        first_out = min([*self.out, *list(self._kept)[:1]], default=self.leased)
        self._waiting.sort(key=lambda group: group.lease)
        while self._waiting and self._waiting[0].lease < first_out:
            group = self._waiting.pop(0)
            if self._sieve.keep(group):
                self.ready.append(group)
            else:
                self._replace(group, "zero_variance")

    def take(self, count: int) -> tuple[list[Group], dict[str, float]]:
        """The oldest `count` that are ready, and what dynamic sampling did for their step."""
        taken, self.ready = self.ready[:count], self.ready[count:]
        metrics = self._sieve.metrics(self._taken // self.plan.groups_per_step)
        self._taken += count
        return taken, metrics

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
        self.replaced += 1
