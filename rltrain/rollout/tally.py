"""Rollouts by fate, counted from the ledger without reading the settled past again and again."""

from __future__ import annotations

import sqlite3
from collections import Counter

Fates = Counter[str | None]
"""Fate -> rollouts; None is in flight."""

_ISSUED = "SELECT COALESCE(SUM(samples), 0) FROM leases WHERE lease > ? AND lease <= ?"
_FATES = "SELECT fate, COUNT(*) FROM rollouts WHERE lease > ? AND lease <= ? GROUP BY fate"


class Tally:
    """What is before the first open lease changes only if the run goes back: it is counted once."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Count everything anew: what was settled may be open again."""
        self._closed = -1
        """Leases up to this one are settled, and counted."""
        self._issued = 0
        self._fates: Fates = Counter()

    def added(self, lease: int) -> None:
        """A new lease; its number need not be the highest."""
        if lease <= self._closed:
            self.forget()

    def count(self, db: sqlite3.Connection) -> tuple[int, Fates]:
        """Rollouts issued, and their fates."""
        first_open, last = db.execute(
            "SELECT MIN(CASE WHEN state != 'settled' THEN lease END), MAX(lease) FROM leases "
            "WHERE lease > ?",
            (self._closed,),
        ).fetchone()
        if last is None:
            return self._issued, Counter(self._fates)
        closed = last if first_open is None else first_open - 1
        issued, fates = _between(db, self._closed, closed)
        self._issued += issued
        self._fates.update(fates)
        self._closed = closed
        issued, fates = _between(db, closed, last)
        return self._issued + issued, self._fates + fates


def _between(db: sqlite3.Connection, after: int, last: int) -> tuple[int, Fates]:
    span = (after, last)
    return int(db.execute(_ISSUED, span).fetchone()[0]), Counter(dict(db.execute(_FATES, span)))
