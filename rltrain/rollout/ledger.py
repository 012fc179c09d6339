"""The ledger: every leased rollout, its fate and, while it may be needed again, its content.

    issued = consumed + dropped (by reason) + in flight         counted in rollouts, at every step

A lease covers the siblings of one task. Its group comes back with some of them lost to the system
(`fault:engine`, ...), some dropped by a detector, and the rest consumed at a step. What came back
is kept in the same transaction that says so, so that a run that stops anywhere can go on from an
older checkpoint with the very same groups (`rewind`). SQLite in WAL mode with one writer, the
learner's rank 0; readers may look on at any time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rltrain.batch.samples import sampled_tokens
from rltrain.errors import RltrainError, UserError
from rltrain.rollout.journal import pack, unpack
from rltrain.rollout.rewind import Rewound, cursor, rewind
from rltrain.rollout.tally import Tally
from rltrain.types import Group

VERSION = 2
CONSUMED = "consumed"
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
  attempts INTEGER NOT NULL DEFAULT 1     -- times it was given out
);
CREATE INDEX IF NOT EXISTS by_step ON leases (step);
CREATE TABLE IF NOT EXISTS rollouts (
  lease INTEGER NOT NULL,
  sample INTEGER NOT NULL,
  tokens INTEGER,                  -- sampled tokens, once it is back
  fate TEXT,                       -- consumed, or why it was dropped; NULL is in flight
  PRIMARY KEY (lease, sample)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS groups (lease INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS resumes (
  id INTEGER PRIMARY KEY,
  at REAL NOT NULL,                -- unix seconds
  step INTEGER NOT NULL,           -- of the checkpoint
  rewound INTEGER NOT NULL,        -- leases that later steps had consumed
  pending INTEGER NOT NULL         -- leases to be given out again
);
"""


class Ledger:
    """The run's book of rollouts. All methods commit before they return."""

    def __init__(self, path: Path, *, keep_all: bool = False) -> None:
        """`keep_all` never forgets a group (`rollout.record`), so that the run can be replayed.

        Raises `UserError` if the file is damaged, or of another version of rltrain."""
        self.path = path
        self.keep_all = keep_all
        self._lock = threading.RLock()  # the dispatcher's thread and the loop share a connection
        self._tally = Tally()
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            # A power cut may lose the last commits, never their order; a killed process nothing.
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._check()
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{path} cannot be used as a ledger ({error}); restore it from a copy, or start a "
                "new run under another name"
            ) from error

    def _check(self) -> None:
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(found.split()))
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        used = self._db.execute("SELECT COUNT(*) FROM sqlite_master WHERE type='table'").fetchone()
        if used[0] and found != VERSION:
            raise UserError(
                f"{self.path} was written by {'an earlier' if found < VERSION else 'another'} "
                f"version of rltrain (ledger version {found}, "
                f"this one reads {VERSION}); continue the run with that version, or start a new one"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:
                    if self._db.in_transaction:  # a full disk has rolled back already
                        self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise RltrainError(f"the ledger {self.path} cannot be written: {error}") from error

    def lease(self, lease: int, task_id: str, samples: int, version: int, worker: str) -> None:
        """Record a lease before it is sent. A lease number is used once (IntegrityError if not)."""
        with self._transaction() as db:
            self._tally.added(lease)
            db.execute(
                "INSERT INTO leases (lease, task_id, position, samples, leased_version, worker) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (lease, task_id, lease, samples, version, worker),
            )
            db.executemany(
                "INSERT INTO rollouts (lease, sample) VALUES (?, ?)",
                ((lease, sample) for sample in range(samples)),
            )

    def lease_again(self, lease: int, version: int, worker: str) -> None:
        """Record that a lease that did not come back is given out once more."""
        with self._transaction() as db:
            db.execute(
                "UPDATE leases SET attempts=attempts+1, leased_version=?, worker=? "
                "WHERE lease=? AND state='leased'",
                (version, worker, lease),
            )

    def receive(self, group: Group) -> bool:
        """Record and keep a returned group. False if it had been recorded before (a retry), or was
        never leased: ignore it then."""
        with self._transaction() as db:
            known = db.execute(
                "UPDATE leases SET state='ready', version=? WHERE lease=? AND state='leased'",
                (group.version if group.members else None, group.lease),
            )
            if known.rowcount != 1:
                return False
            db.execute("INSERT INTO groups VALUES (?, ?)", (group.lease, pack(group)))
            back = [*group.members, *([group.greedy] if group.greedy else [])]
            db.executemany(
                "UPDATE rollouts SET tokens=? WHERE lease=? AND sample=?",
                (
                    (sampled_tokens(m.judged.episode), group.lease, m.judged.episode.sample)
                    for m in back
                ),
            )
        return True

    def settle(self, lease: int, *, step: int | None, fates: Mapping[int, str]) -> None:
        """Close a lease: of each of its rollouts, by number, `consumed` or why it was dropped.

        Raises:
            ValueError: if they are not those that were issued, or the lease is closed already.
        """
        with self._transaction() as db:
            row = db.execute(
                "SELECT samples FROM leases WHERE lease=? AND state!='settled'", (lease,)
            ).fetchone()
            if row is None:
                raise ValueError(f"lease {lease} is not open: never issued, or settled already")
            if set(fates) != set(range(row[0])):
                raise ValueError(f"lease {lease}: fates {dict(fates)} != {row[0]} issued")
            self._close(db, lease, step, fates)

    @staticmethod
    def _close(
        db: sqlite3.Connection, lease: int, step: int | None, fates: Mapping[int, str]
    ) -> None:
        db.execute("UPDATE leases SET state='settled', step=? WHERE lease=?", (step, lease))
        db.executemany(
            "UPDATE rollouts SET fate=? WHERE lease=? AND sample=?",
            ((fate, lease, sample) for sample, fate in fates.items()),
        )

    def settle_open(self, reason: str) -> int:
        """Drop everything still in flight, with a reason; returns the number of leases closed."""
        with self._transaction() as db:
            open_leases = db.execute(
                "SELECT lease, samples FROM leases WHERE state != 'settled'"
            ).fetchall()
            for lease, samples in open_leases:
                self._close(db, lease, None, dict.fromkeys(range(samples), reason))
        return len(open_leases)

    def totals(self) -> dict[str, object]:
        """`issued`, `consumed`, `dropped` by reason, `in_flight`; raises if they do not add up."""
        with self._transaction() as db:
            issued, counts = self._tally.count(db)
        consumed, in_flight = counts.pop(CONSUMED, 0), counts.pop(None, 0)
        if issued != consumed + sum(counts.values()) + in_flight:
            raise AssertionError(f"ledger {self.path} does not add up")
        return {
            "issued": issued,
            "consumed": consumed,
            "dropped": dict(sorted(counts.items())),
            "in_flight": in_flight,
        }

    def rewind(self, step: int) -> Rewound:
        """Go back to the end of `step`; see `rollout.rewind`."""
        with self._transaction() as db:
            self._tally.forget()
            return rewind(db, step)

    def prune(self, step: int) -> None:
        """Forget the content of groups that no `rewind` to `step` or later needs."""
        if not self.keep_all:
            with self._transaction() as db:
                db.execute("DELETE FROM groups WHERE lease <= ?", (cursor(db, step),))

    def group(self, lease: int) -> Group:
        """A group that is kept. Raises `UserError` if its bytes are damaged."""
        with self._transaction() as db:
            row = db.execute("SELECT body FROM groups WHERE lease=?", (lease,)).fetchone()
        return unpack(row[0])

    def close(self) -> None:
        self._db.close()
