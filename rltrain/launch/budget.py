"""Whether a process that died is started again, and after how long. Pure: no clock, no process."""

from __future__ import annotations

from collections import deque

from rltrain.config.supervise import SuperviseConfig

SAME_WORDS = 3
"""Ends in a row with one and the same message after which another start is pointless."""


class Budget:
    """One process's restarts."""

    def __init__(self, config: SuperviseConfig) -> None:
        self.config = config
        self.spent = ""
        """Why there is no further restart; empty while there is."""
        self._times: deque[float] = deque()
        self._streak = 0
        self._words = ""
        self._same = 0

    @property
    def used(self) -> int:
        """Restarts within the window, the one just granted among them."""
        return len(self._times)

    def died(self, now: float, lived_s: float, words: str = "") -> float | None:
        """Seconds to wait before the next start, or None if there is none.

        now: seconds on any clock that does not go back. lived_s: how long it had been running.
        words: the error with which it ended by itself; empty if it was killed.

        The wait is `backoff_s`, doubled with each further death; a process that had lived longer
        than `backoff_max_s` starts over."""
        config = self.config
        while self._times and now - self._times[0] > config.window_s:
            self._times.popleft()
        self._same = self._same + 1 if words and words == self._words else 1
        self._words = words
        if words and self._same == SAME_WORDS:
            self.spent = f"the same end {SAME_WORDS} times in a row"
        elif self.used >= config.max_restarts:
            self.spent = (
                f"supervise.max_restarts={config.max_restarts} within {config.window_s:g} s"
            )
        if self.spent:
            return None
        self._streak = 0 if lived_s > config.backoff_max_s else self._streak
        delay_s: float = min(config.backoff_s * 2.0 ** min(self._streak, 32), config.backoff_max_s)
        self._streak += 1
        self._times.append(now)
        return delay_s
