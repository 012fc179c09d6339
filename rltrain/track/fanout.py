"""One tracker in front of several: a sink that fails is reported once and never stops the rest."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rltrain.protocols import Tracker

LOG = logging.getLogger("rltrain.track")


class FanOut:
    """Hands every row to every tracker. Lost rows are counted and named, never silent."""

    def __init__(
        self, trackers: Sequence[Tracker], *, warn: Callable[[str], None] = LOG.warning
    ) -> None:
        self._trackers = tuple(trackers)
        self._warn = warn
        self.lost: Counter[str] = Counter()
        """Rows that a sink did not take, by the sink's class name."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            self._try(tracker, partial(tracker.log, step, metrics), f"step {step}")

    def close(self) -> None:
        for tracker in self._trackers:
            self._try(tracker, tracker.close, "close")
        for name, count in self.lost.items():
            self._warn(f"{name} lost {count} record(s) of this run")

    def _try(self, tracker: Tracker, call: Callable[[], None], what: str) -> None:
        # The one place where everything is caught: `Tracker` promises that logging stops no run.
        try:
            call()
        except Exception as error:
            name = type(tracker).__name__
            self.lost[name] += 1
            if self.lost[name] == 1:
                self._warn(f"{name} failed at {what}: {type(error).__name__}: {error}")
