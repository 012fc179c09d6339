"""Signs of life: a child touches RUN/heartbeats/NAME every second, its supervisor sees it change.

A thread beats from the first moment on, while modules are imported and models loaded. Where an
event loop does the work, it takes over once it runs: a loop that hangs then no longer beats.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

BEAT_S = 1.0
FOLDER = "heartbeats"


def beat_file(run_dir: Path, name: str) -> Path:
    return run_dir / FOLDER / name


class Heart:
    """Beats in a thread until somebody awaits `beat_on`, and there from then on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def beat_on(self) -> None:
        """Take over from the thread; until cancelled."""
        self._stop.set()
        while True:
            self._touch()
            await asyncio.sleep(BEAT_S)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            self._touch()

    def _touch(self) -> None:
        with contextlib.suppress(OSError):  # a full disk shows elsewhere, with a better message
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch()


class Watch:
    """How long something has shown no sign of life. Pure; the caller brings the time.

    A sign is any change of a mark. Of a pause in the watching itself `MOST_S` count at most, so
    that processes that were suspended together with the watcher are not blamed for it."""

    MOST_S = 1.0

    def __init__(self, mark: object, now: float) -> None:
        self._mark = mark
        self._seen = now
        self.silent_s = 0.0
        self.beats = 0
        """Changes seen so far."""

    def look(self, mark: object, now: float) -> float:
        """Seconds of silence, in the time of the watching."""
        if mark != self._mark:
            self._mark, self.silent_s = mark, 0.0
            self.beats += 1
        else:
            self.silent_s += min(now - self._seen, self.MOST_S)
        self._seen = now
        return self.silent_s
