"""How many rollouts the system loses, and when that is too many to go on.

    good --too many faults--> paused --pause_s--> probing --one step's groups--> good, or paused

A run whose engine or judge is ill waits and tries again with a few groups, instead of losing task
after task or ending over what may be well again in a minute.
"""

from __future__ import annotations

from collections import deque

from rltrain.errors import RltrainError

WINDOW_STEPS = 10


class FaultWatch:
    """A window over the last groups. Too many faults make a pause; too many pauses, an error."""

    def __init__(
        self, groups_per_step: int, max_rate: float, *, pause_s: float, max_pauses: int
    ) -> None:
        """`max_pauses` in a row, without a probe below `max_rate` in between."""
        self.max_rate, self.pause_s, self.max_pauses = max_rate, pause_s, max_pauses
        self._enough = groups_per_step
        self._recent: deque[tuple[int, int]] = deque(maxlen=WINDOW_STEPS * groups_per_step)
        self._pauses = 0
        self._until = 0.0
        self._probe: set[int] | None = None
        """Leases begun since the pause; None while all is good."""

    def paused(self, now: float) -> bool:
        return now < self._until

    def admits(self, now: float) -> bool:
        """Whether one more lease may be given out."""
        probing = self._probe is not None and len(self._probe) >= self._enough
        return not self.paused(now) and not probing

    def began(self, lease: int) -> None:
        if self._probe is not None:
            self._probe.add(lease)

    def add(self, lease: int, faults: int, rollouts: int, now: float) -> tuple[str, str] | None:
        """Count a group that came back. Returns kind and text of an event: the run pauses, or goes
        on. What was begun before a pause says nothing about how things are after it: not counted.

        Raises:
            RltrainError: after the last pause."""
        if self._probe is not None and lease not in self._probe:
            return None
        self._recent.append((faults, rollouts))
        if len(self._recent) < self._enough:
            return None
        lost, seen = (sum(column) for column in zip(*self._recent, strict=True))
        if lost / seen > self.max_rate:
            return "paused", self._pause(lost, seen, now)
        if self._probe is None:
            return None
        self._probe, self._pauses = None, 0
        return "paused_over", f"{lost} of {seen} rollouts were lost after the pause"

    def _pause(self, lost: int, seen: int, now: float) -> str:
        text = (
            f"{lost} of the last {seen} rollouts were lost to system faults, more than "
            f"rollout.max_fault_rate={self.max_rate}"
        )
        if self._pauses >= self.max_pauses:
            after = f" after {self._pauses} pauses" if self._pauses else ""
            raise RltrainError(f"{text}{after}; see events.jsonl")
        self._pauses += 1
        self._until = now + self.pause_s
        self._probe = set()
        self._recent.clear()
        return f"{text}; new rollouts wait {self.pause_s:g} s ({self._pauses} of {self.max_pauses})"
