"""The ledger as an auditor reads it: read-only, whole, and never trusted.

Nothing here goes through the code that wrote the ledger, so that a mistake there cannot hide
itself. A ledger that cannot be read is a sentence, not an exception.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

VERSION = 2
CONSUMED = "consumed"
NEVER_STORED = ("fault:", "greedy_baseline")
"""Fates of rollouts that no step file holds: lost to the system, or never trained on."""
_TABLES = {
    "leases": {"lease", "task_id", "position", "samples", "leased_version", "state", "version",
               "step", "attempts"},
    "rollouts": {"lease", "sample", "tokens", "fate"},
    "resumes": {"id", "at", "step", "rewound", "pending"},
}  # fmt: skip
_SHOWN = 3

Key = tuple[int, int]
"""(lease, sample)."""
Lengths = list[tuple[int, str, int, int]]
"""(lease, fate, rollouts with a known length, their sampled tokens)."""


@dataclass(slots=True, kw_only=True)
class Book:
    """What the ledger says."""

    issued: int = 0
    """Sum of what the leases issued."""
    consumed: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    skipped: int = 0
    """Positions of the task stream below the last one that no lease covers."""
    repeated: int = 0
    """Positions that more than one lease covers."""
    released: int = 0
    """Leases that went out more than once."""
    attempts: int = 0
    """Times that a lease went out again, over all leases."""
    resumes: list[dict[str, Any]] = field(default_factory=list)
    stored: dict[int, set[Key]] = field(default_factory=dict)
    """By step, the rollouts that its file must hold."""
    lag: int | None = None
    """Largest number of policy versions between sampling and training."""
    lengths: Lengths = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def adds_up(self) -> bool:
        return self.issued == self.consumed + sum(self.dropped.values()) + self.in_flight

    @property
    def last_step(self) -> int:
        return max(self.stored, default=0)


def read_book(path: Path) -> tuple[Book | None, list[str]]:
    """The ledger's content, or None and the sentences that say why it cannot be read."""
    if not path.is_file():
        return None, [f"{path.name} is missing"]
    try:
        with _opened(path) as db:
            damage = _damage(db)
            return (None, damage) if damage else (_book(db), [])
    except (sqlite3.Error, OSError) as error:
        return None, [f"{path.name} cannot be read: {error}"]


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Read-only. Where SQLite cannot even share its lock file (a read-only disk), a copy is read,
    with the journal beside it: without that the newest commits would be missing."""
    if _readable(path):
        with closing(_connect(path)) as db:
            yield db
        return
    with tempfile.TemporaryDirectory() as work:
        for name in (path.name, f"{path.name}-wal"):
            if path.with_name(name).is_file():
                shutil.copy(path.with_name(name), work)
        with closing(_connect(Path(work) / path.name)) as db:
            yield db


def _readable(path: Path) -> bool:
    try:
        with closing(_connect(path)) as db:
            db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        if "unable to open" in str(error) or "readonly" in str(error):
            return False
        raise
    return True


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
    db.execute("PRAGMA query_only = ON")
    return db


def _damage(db: sqlite3.Connection) -> list[str]:
    found = [str(row[0]).splitlines()[0] for row in db.execute(f"PRAGMA quick_check({_SHOWN})")]
    if found != ["ok"]:
        return [f"ledger.sqlite is damaged: {line}" for line in found]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        return [f"ledger.sqlite has schema version {version}; this audit reads version {VERSION}"]
    problems = []
    for table, wanted in _TABLES.items():
        there = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        if not wanted <= there:
            missing = ", ".join(sorted(wanted - there))
            problems.append(f"ledger.sqlite has no {table} with the column(s) {missing}")
    return problems


def _book(db: sqlite3.Connection) -> Book:
    book = Book()
    leases, book.issued = _row(db, "SELECT COUNT(*), COALESCE(SUM(samples), 0) FROM leases")
    for fate, count in db.execute("SELECT fate, COUNT(*) FROM rollouts GROUP BY fate"):
        if fate is None:
            book.in_flight = count
        elif fate == CONSUMED:
            book.consumed = count
        else:
            book.dropped[fate] = count
    positions, last = _row(
        db, "SELECT COUNT(DISTINCT position), COALESCE(MAX(position), -1) FROM leases"
    )
    book.skipped, book.repeated = last + 1 - positions, leases - positions
    book.released, book.attempts = _row(
        db, "SELECT COUNT(*), COALESCE(SUM(attempts - 1), 0) FROM leases WHERE attempts > 1"
    )
    names = ("at", "step", "rewound", "pending")
    book.resumes = [
        dict(zip(names, row, strict=True))
        for row in db.execute(f"SELECT {', '.join(names)} FROM resumes ORDER BY id")
    ]
    book.lag = _row(db, "SELECT MAX(step - 1 - version) FROM leases WHERE step IS NOT NULL")[0]
    book.stored = dict(_stored(db))
    book.lengths = db.execute(
        "SELECT lease, fate, COUNT(tokens), SUM(tokens) FROM rollouts "
        "WHERE tokens IS NOT NULL AND fate IS NOT NULL GROUP BY lease, fate"
    ).fetchall()
    book.problems = _contradictions(db)
    return book


def _row(db: sqlite3.Connection, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = db.execute(query).fetchone()
    return row


def _stored(db: sqlite3.Connection) -> Iterator[tuple[int, set[Key]]]:
    rows = db.execute(
        "SELECT l.step, r.lease, r.sample, r.fate FROM leases l JOIN rollouts r USING (lease) "
        "WHERE l.step IS NOT NULL ORDER BY l.step"
    )
    for step, found in groupby(rows, key=lambda row: row[0]):
        yield step, {
            (lease, sample) for _, lease, sample, fate in found
            if fate is not None and not fate.startswith(NEVER_STORED)
        }


_CONTRADICTIONS = {
    "{n} lease(s) hold another number of rollouts than they issued (lease {first})":
        "SELECT l.lease FROM leases l LEFT JOIN rollouts r USING (lease) GROUP BY l.lease "
        "HAVING COUNT(r.sample) != l.samples",
    "{n} rollout(s) belong to no lease (lease {first})":
        "SELECT lease FROM rollouts WHERE lease NOT IN (SELECT lease FROM leases)",
    "{n} settled lease(s) have rollouts without a fate (lease {first})":
        "SELECT DISTINCT lease FROM leases JOIN rollouts USING (lease) "
        "WHERE state = 'settled' AND fate IS NULL",
    "{n} open lease(s) have rollouts that were consumed (lease {first})":
        "SELECT DISTINCT lease FROM leases JOIN rollouts USING (lease) "
        "WHERE state != 'settled' AND fate = 'consumed'",
    "{n} lease(s) were consumed at no step (lease {first})":
        "SELECT DISTINCT lease FROM leases JOIN rollouts USING (lease) "
        "WHERE step IS NULL AND fate = 'consumed'",
    "{n} lease(s) were sampled by an older policy than they were given out at (lease {first})":
        "SELECT lease FROM leases WHERE version < leased_version AND attempts = 1",
}  # fmt: skip


def _contradictions(db: sqlite3.Connection) -> list[str]:
    """One sentence per kind of row that cannot be, with how many there are and the first."""
    problems = []
    for sentence, query in _CONTRADICTIONS.items():
        rows = [row[0] for row in db.execute(query)]
        if rows:
            problems.append(f"ledger: {sentence.format(n=len(rows), first=min(rows))}")
    return problems
