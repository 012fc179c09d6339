"""Who holds which lease, from what the workers say of themselves once a second.

Nothing here is on disk: after a restart of the learner or of a worker, the next messages say again
how things are. A lease that its worker does not know of, twice in a row and some seconds after it
was sent, went to a process that is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

GRACE_S = 3.0
"""A lease that was sent so recently may still be on its way."""


@dataclass(slots=True)
class _Worker:
    capacity: int = 0
    holding: frozenset[int] = frozenset()
    sent: dict[int, float] = field(default_factory=dict)
    """Lease -> when it was sent, on the monotonic clock."""
    missing: frozenset[int] = frozenset()
    """Leases that it did not know of the last time."""

    @property
    def free(self) -> int:
        return self.capacity - len(self.holding | self.sent.keys())


class Roster:
    """The workers that have ever been heard of."""

    def __init__(self) -> None:
        self._workers: dict[bytes, _Worker] = defaultdict(_Worker)

    @property
    def names(self) -> list[bytes]:
        return list(self._workers)

    def hear(self, name: bytes, capacity: int, holding: Iterable[int], now: float) -> list[int]:
        """Take note of a worker; returns the leases that were lost with a former process of it."""
        worker = self._workers[name]
        worker.capacity, worker.holding = capacity, frozenset(holding)
        old = {lease for lease, sent in worker.sent.items() if now - sent > GRACE_S}
        unknown = frozenset(old - worker.holding)
        lost = sorted(unknown & worker.missing)
        worker.missing = unknown - set(lost)
        for lease in lost:
            del worker.sent[lease]
        return lost

    def send(self, name: bytes, lease: int, now: float) -> None:
        self._workers[name].sent[lease] = now

    def back(self, lease: int) -> None:
        """A lease came back, from whichever worker."""
        for worker in self._workers.values():
            worker.sent.pop(lease, None)
            worker.holding -= {lease}

    def idlest(self) -> bytes | None:
        """The worker with the most room, or None if none has any."""
        name = max(self._workers, key=lambda n: self._workers[n].free, default=None)
        return name if name is not None and self._workers[name].free > 0 else None
