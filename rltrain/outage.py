"""How long something has been out of reach, told once when it begins to matter and once at its end.

The engine client and the judge each keep one `Outages`. What answers again within `REPORT_AFTER_S`
was a hiccup and is not reported; anything longer is a gap that the run's events show.
"""

from __future__ import annotations

import time
from collections.abc import Callable

REPORT_AFTER_S = 1.0

Report = Callable[[str, str], None]
"""Called with (kind, text); kind is `outage` or `outage_over`."""


def unreported(kind: str, text: str) -> None:
    """For clients outside of a run, which has events."""


class Outages:
    """Which of some services are out, and since when. Belongs to one event loop."""

    def __init__(
        self, report: Report = unreported, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._since: dict[str, float] = {}
        self._told: set[str] = set()

    def failed(self, name: str, cause: str) -> None:
        """`name` did not answer. The first such call begins its outage."""
        now = self._clock()
        since = self._since.setdefault(name, now)
        if name not in self._told and now - since >= REPORT_AFTER_S:
            self._told.add(name)
            self._report("outage", f"{name} cannot be reached: {cause}")

    def answered(self, name: str) -> None:
        """`name` answered: its outage, if there was one, is over."""
        since = self._since.pop(name, None)
        if since is not None and name in self._told:
            self._told.remove(name)
            seconds = self._clock() - since
            self._report("outage_over", f"{name} answers again after {seconds:.1f} s")

    def close(self) -> None:
        """Nobody asks any more: what is still out gets its end here, so that no gap stays open."""
        for name in sorted(self._told):
            seconds = self._clock() - self._since[name]
            text = f"{name} is not asked any more; it was out of reach for {seconds:.1f} s"
            self._report("outage_over", text)
        self._since.clear()
        self._told.clear()
