"""What judges answered, remembered from run to run in one SQLite file.

Every answer is one transaction in WAL mode, so that a killed process loses none that was written
and leaves no half of one; any number of workers share the file. A file that is something else, or
damaged, stops the run before it starts. One that breaks later is not used any further: verdicts go
on, `judge/store_faults` counts, an event says so.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from rltrain.errors import UserError
from rltrain.outage import Report, unreported

MARK = 0x726C6A31
"""SQLite's application id of such a file."""
BUSY_S = 5.0
"""How long a worker waits for another's write."""
BEGINS = 20


class JudgeStore:
    """Keys to texts. Use it in one thread."""

    def __init__(self, path: str | Path, report: Report = unreported) -> None:
        """Open, or begin, the file. Raises `UserError` if it cannot be used."""
        self.path = Path(path)
        self.faults = 0
        self._report = report
        self._db: sqlite3.Connection | None = None
        db = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            self._begin(db)
        except (OSError, sqlite3.Error) as error:
            if db is not None:
                db.close()
            raise UserError(
                f"rewards.judge.cache_file={self.path} cannot be used ({error}); delete it, or "
                "name another file"
            ) from error
        self._db = db

    def get(self, key: str) -> str | None:
        """What was answered, or None."""
        if self._db is None:
            return None
        try:
            row = self._db.execute("SELECT text FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return row[0] if row and isinstance(row[0], str) else None

    def put(self, key: str, text: str) -> None:
        """Remember an answer. Never raises for a file that cannot be written."""
        if self._db is None:
            return
        try:
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _begin(self, db: sqlite3.Connection) -> None:
        for again in range(BEGINS):
            try:
                return self._prepare(db)
            except sqlite3.OperationalError as error:
                # Changing to WAL does not wait for another worker that begins the same file.
                if "locked" not in str(error) or again == BEGINS - 1:
                    raise
                time.sleep(0.1)

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Raises `sqlite3.Error` for what is no store, before anything is written to it."""
        mark = db.execute("PRAGMA application_id").fetchone()[0]
        tables = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if mark != MARK and (mark or tables):
            raise sqlite3.DatabaseError("it is a database of something else")
        said = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise sqlite3.DatabaseError(f"it is damaged: {said.splitlines()[0]}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("BEGIN IMMEDIATE")  # two workers may begin the same file
        db.execute(f"PRAGMA application_id = {MARK}")
        db.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT NOT NULL) "
            "WITHOUT ROWID"
        )
        db.execute("COMMIT")
        db.execute("SELECT key, text FROM answers LIMIT 1").fetchone()

    def _give_up(self, error: sqlite3.Error) -> None:
        self.faults += 1
        self._report("judge_cache", f"{self.path} is not used any further: {error}")
        self.close()
