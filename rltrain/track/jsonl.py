"""metrics.jsonl and events.jsonl: append-only, flushed per line, readable while they grow.

metrics.jsonl is *the* record of a run; everything else that shows a curve reads it. A process that
is killed can tear the last line at most; readers skip a torn line and say so.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltrain.track.files import to_json, write_text
from rltrain.track.redact import redact_text

Row = dict[str, float]


class LineWriter:
    """Appends whole JSON lines with one unbuffered write each.

    A file that ends in a torn line is first closed off with a newline, so that the torn line cannot
    swallow the next row."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._fsync = fsync
        self._torn = _ends_torn(path)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. Raises `OSError` if the disk does not take it whole."""
        line = ("\n" if self._torn else "") + to_json(row) + "\n"
        data = line.encode()
        self._torn = True  # until the whole line is known to be on its way
        if self._file.write(data) != len(data):
            raise OSError(f"only a part of a line could be written to {self._file.name}")
        self._torn = False
        if self._fsync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as handle:
        if handle.seek(0, os.SEEK_END) == 0:
            return False
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) != b"\n"


class JsonlTracker:
    """The `Tracker` behind metrics.jsonl: one row `{"step", "time", key: float…}` per call.

    `time` is seconds since 1970 (UTC). With `fsync` each row survives a power cut, at the price of
    a disk flush per step; without it each row survives the death of the process."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self._lines = LineWriter(path, fsync=fsync)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        reserved = {"step", "time"} & metrics.keys()
        if reserved:
            raise ValueError(f"metric names {sorted(reserved)} are reserved; rename them")
        values = {name: float(value) for name, value in metrics.items()}
        self._lines.write({"step": step, "time": time.time(), **values})

    def close(self) -> None:
        self._lines.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What a reader found in metrics.jsonl."""

    rows: tuple[Row, ...]
    """One per step, steps ascending."""
    torn: int = 0
    """Lines that were cut off by a crash and are not among `rows`."""
    superseded: int = 0
    """Rows replaced by a later one of the same step (the run went on from a checkpoint)."""


def read_jsonl(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All whole rows of a file, and how many lines were torn. A missing file has no rows."""
    if not path.exists():
        return [], 0
    rows: list[dict[str, Any]] = []
    torn = 0
    for line in path.read_bytes().split(b"\n"):
        if not line.strip():
            continue
        row = _parse(line)
        if row is None:
            torn += 1
        else:
            rows.append(row)
    return rows, torn


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:  # includes bytes that are not UTF-8: the tail of a crash
        return None
    return row if isinstance(row, dict) else None


def _numbers(row: Mapping[str, Any]) -> Row:
    """Floats only; `NaN` and `Infinity` come back from their strings."""
    numbers: Row = {}
    for name, value in row.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError):
            continue
    return numbers


def read_metrics(path: Path) -> Metrics:
    """Read metrics.jsonl, also while it is being written or after a crash."""
    raw, torn = read_jsonl(path)
    rows = [row for row in map(_numbers, raw) if "step" in row]
    torn += len(raw) - len(rows)
    latest = {row["step"]: row for row in rows}
    ordered = tuple(latest[step] for step in sorted(latest))
    return Metrics(rows=ordered, torn=torn, superseded=len(rows) - len(ordered))


def cut_metrics(path: Path, step: int) -> int:
    """Leave the rows up to `step`, one per step, and nothing else; returns how many steps went.

    For a run that goes on from a checkpoint: later steps are done, and logged, again. The file is
    replaced whole; one that is as it should be stays untouched."""
    raw, torn = read_jsonl(path)
    latest = {row["step"]: row for row in raw if isinstance(row.get("step"), int)}
    kept = [latest[number] for number in sorted(latest) if number <= step]
    if torn or len(kept) != len(raw):
        write_text(path, "".join(to_json(row) + "\n" for row in kept))
    return len(latest) - len(kept)


class Tail:
    """Reads what was appended since the last `poll`. Keeps a half-written line for the next one.

    A file that was put in the place of the old one is read from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = -1
        self._offset = 0
        self._rest = b""

    def poll(self) -> list[Row]:
        """New whole rows, oldest first; none while the file does not exist."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as handle:
            found = os.fstat(handle.fileno())
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._inode, self._offset, self._rest = found.st_ino, 0, b""
            handle.seek(self._offset)
            data = handle.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        parsed = [_parse(line) for line in lines if line.strip()]
        return [_numbers(row) for row in parsed if row is not None]


def append_event(run_dir: Path, *, process: str, kind: str, text: str) -> None:
    """Add one line to events.jsonl: a fault, an alarm, a restart. Any process may call it. Values
    of secret environment variables, which an error's text may quote, are struck out."""
    lines = LineWriter(run_dir / "events.jsonl")
    try:
        row = {"time": time.time(), "process": process, "kind": kind, "text": redact_text(text)}
        lines.write(row)
    finally:
        lines.close()
