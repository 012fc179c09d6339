"""Cheap real children: Python one-liners that live, die or hang as they are told to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rltrain.launch.children import Child
from rltrain.launch.members import ChildMember

ALIVE = """
import pathlib, sys, time
file = pathlib.Path(sys.argv[1])
while True:
    file.touch()
    time.sleep(0.05)
"""
"""Beats for ever."""


class Script(Child):
    """A child whose first argument is Python code."""

    program = ("-S", "-c")


class Crew:
    """Makes members in a folder, and knows every process that they ever started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids: dict[str, list[int]] = {}
        self.told: list[tuple[str, str]] = []

    def tell(self, process: str, text: str) -> None:
        self.told.append((process, text))

    def member(self, name: str, code: str = ALIVE) -> ChildMember:
        beats = self.folder / name

        def make() -> Child:
            child = Script(name, [code, str(beats)], self.folder / f"{name}.log")
            self.pids.setdefault(name, []).append(child.process.pid)
            return child

        return ChildMember(name, make, beats)

    def living(self) -> list[int]:
        return [pid for pids in self.pids.values() for pid in pids if is_alive(pid)]

    def newest(self, name: str) -> int:
        return self.pids[name][-1]

    def restarted(self, name: str, times: int = 1) -> Callable[[], bool]:
        return lambda: len(self.pids[name]) > times and (self.folder / name).exists()


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
