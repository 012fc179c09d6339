"""The ledger: every leased rollout and its fate, on disk before anybody acts on it.

    issued = consumed + dropped (by reason) + in flight         counted in rollouts, at every step

A lease covers the `samples` siblings of one task. Its group comes back with some of them lost to
the system (`fault:engine`, ...), some dropped by a detector, and the rest consumed at a step.
SQLite in WAL mode with one writer, the learner's rank 0; readers may look on at any time.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rltrain.types import Group

SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
  lease INTEGER PRIMARY KEY,
  task_id TEXT NOT NULL,
  position INTEGER NOT NULL,       -- how far into the task stream, 0-based
  samples INTEGER NOT NULL,        -- rollouts issued by this lease
  leased_version INTEGER NOT NULL,
  worker TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'leased',   -- leased | ready | settled
  version INTEGER,                 -- oldest policy version that sampled a token
  step INTEGER,                    -- consumed at this step
  consumed INTEGER NOT NULL DEFAULT 0,
  dropped TEXT NOT NULL DEFAULT '{}'      -- reason -> rollouts
);
"""


class Ledger:
    """The run's book of rollouts. All methods commit before they return."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        # A power cut may lose the last commits but never the order; a killed process loses nothing.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)

    def lease(self, lease: int, task_id: str, samples: int, version: int, worker: str) -> None:
        """Record a lease before it is sent. A lease number is used once (IntegrityError if not)."""
        self._db.execute(
            "INSERT INTO leases (lease, task_id, position, samples, leased_version, worker) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (lease, task_id, lease, samples, version, worker),
        )

    def receive(self, group: Group) -> bool:
        """Record a returned group. False if it had been recorded before (a retry): ignore it."""
        cursor = self._db.execute(
            "UPDATE leases SET state='ready', version=? WHERE lease=? AND state='leased'",
            (group.version if group.members else None, group.lease),
        )
        return cursor.rowcount == 1

    def settle(
        self, lease: int, *, step: int | None, consumed: int, dropped: Mapping[str, int]
    ) -> None:
        """Close a lease: how many of its rollouts were consumed at `step`, the rest by reason.

        Raises:
            ValueError: if they do not add up to what was issued, or the lease is closed already.
        """
        row = self._db.execute(
            "SELECT samples FROM leases WHERE lease=? AND state!='settled'", (lease,)
        ).fetchone()
        if row is None:
            raise ValueError(f"lease {lease} is not open: never issued, or settled already")
        if consumed + sum(dropped.values()) != row[0]:
            raise ValueError(
                f"lease {lease}: {consumed} consumed + {dict(dropped)} != {row[0]} issued"
            )
        self._db.execute(
            "UPDATE leases SET state='settled', step=?, consumed=?, dropped=? WHERE lease=?",
            (step, consumed, json.dumps(dict(dropped)), lease),
        )

    def settle_open(self, reason: str) -> int:
        """Drop everything still in flight, with a reason; returns the number of leases closed."""
        open_leases = self._db.execute(
            "SELECT lease, samples FROM leases WHERE state != 'settled'"
        ).fetchall()
        for lease, samples in open_leases:
            self.settle(lease, step=None, consumed=0, dropped={reason: samples})
        return len(open_leases)

    def totals(self) -> dict[str, object]:
        """`issued`, `consumed`, `dropped` by reason, `in_flight`; raises if they do not add up."""
        issued = consumed = in_flight = 0
        dropped: Counter[str] = Counter()
        for samples, state, used, reasons in self._db.execute(
            "SELECT samples, state, consumed, dropped FROM leases"
        ):
            issued += samples
            consumed += used
            if state == "settled":
                dropped.update(json.loads(reasons))
            else:
                in_flight += samples
        if issued != consumed + sum(dropped.values()) + in_flight:
            raise AssertionError(f"ledger {self.path} does not add up")
        return {
            "issued": issued,
            "consumed": consumed,
            "dropped": dict(sorted(dropped.items())),
            "in_flight": in_flight,
        }

    def close(self) -> None:
        self._db.close()
