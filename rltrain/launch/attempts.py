"""How long a run took, over all its attempts: attempts.json, kept up to date while it runs.

A front end that is killed cannot write down when; the next one takes the last sign of life that it
left (a heartbeat, a row of metrics) for the end.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rltrain.launch.heartbeat import FOLDER
from rltrain.rundir import RunDir
from rltrain.track.files import to_json, write_text

FILE = "attempts.json"


class Attempts:
    """The seconds of this attempt and of those before it, by phase."""

    def __init__(self, run: RunDir) -> None:
        self._file = run.path / FILE
        self._all: list[dict[str, Any]] = _read(self._file)
        if self._all:
            _close(self._all[-1], _last_sign(run, self._all[-1]))
        self._all.append({"started": time.time(), "ended": None, "seconds": {}, "open": None})
        self._save()

    @property
    def number(self) -> int:
        """1 for a run that was never continued."""
        return len(self._all)

    def phase(self, name: str | None) -> None:
        """End the phase before, if there is one, and begin another."""
        now = time.time()
        _settle(self._all[-1], now)
        if name is not None:
            self._all[-1]["open"] = [name, now]
        self._save()

    def end(self) -> None:
        """This attempt is over, however."""
        _close(self._all[-1], time.time())
        self._save()

    def seconds(self) -> dict[str, float]:
        """Totals over all attempts: every phase's name, and `wall_s`."""
        total: Counter[str] = Counter()
        for attempt in self._all:
            total.update(attempt["seconds"])
            total["wall_s"] += (attempt["ended"] or time.time()) - attempt["started"]
        return {name: float(value) for name, value in total.items()}

    def _save(self) -> None:
        write_text(self._file, to_json(self._all, indent=1) + "\n")


def _read(file: Path) -> list[dict[str, Any]]:
    return list(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else []


def _settle(attempt: dict[str, Any], now: float) -> None:
    if attempt["open"]:
        name, begun = attempt["open"]
        seconds = attempt["seconds"]
        seconds[name] = seconds.get(name, 0.0) + max(0.0, now - begun)
        attempt["open"] = None


def _close(attempt: dict[str, Any], now: float) -> None:
    if attempt["ended"] is None:
        _settle(attempt, now)
        attempt["ended"] = max(now, attempt["started"])


def _last_sign(run: RunDir, attempt: dict[str, Any]) -> float:
    signs = [run.metrics, run.events, *(run.path / FOLDER).glob("*")]
    times = [path.stat().st_mtime for path in signs if path.exists()]
    begun = attempt["open"][1] if attempt["open"] else attempt["started"]
    return max([float(begun), *times])
