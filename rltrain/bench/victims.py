"""The processes of a run, found from outside, and the harm that can be done to them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

FRONT = "front end"
STOP_S = 3.0
"""A stopped process goes on after this long, unless somebody killed it before."""


@dataclass(frozen=True, slots=True)
class Victim:
    """One process of a run at this moment."""

    role: str
    process: psutil.Process

    def send(self, number: int) -> bool:
        """Send a signal; False if the process was gone already."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.send_signal(number)
            return True
        return False


def role_of(command: list[str]) -> str | None:
    """`learner`, `worker`, `engine` or `judge` by a child's command line; None for any other."""
    if "rltrain.launch.child" in command:
        role = command[command.index("rltrain.launch.child") + 1]
        return role if role in ("learner", "worker") else None
    if "rltrain.rollout.engine_boot" in command and "--served-model-name" in command:
        name = command[command.index("--served-model-name") + 1]
        return "judge" if name == "judge" else "engine"
    return None


def victims(front: int) -> list[Victim]:
    """The run's processes that live now, the front end with pid `front` among them."""
    try:
        top = psutil.Process(front)
        found = [Victim(FRONT, top)]
        for child in top.children():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                role = role_of(child.cmdline())
                if role:
                    found.append(Victim(role, child))
    except psutil.NoSuchProcess:
        return []
    return found


def kill(victim: Victim, run: Path) -> bool:
    """SIGKILL: no handler runs, nothing is flushed."""
    return victim.send(signal.SIGKILL)


def terminate(victim: Victim, run: Path) -> bool:
    """SIGTERM, as a scheduler or an operator sends it."""
    return victim.send(signal.SIGTERM)


def freeze(victim: Victim, run: Path) -> bool:
    """SIGSTOP, and SIGCONT a little later, as on a machine that swaps or is suspended."""
    sent = victim.send(signal.SIGSTOP)
    if sent:
        timer = threading.Timer(STOP_S, lambda: victim.send(signal.SIGCONT))
        timer.daemon = True
        timer.start()
    return sent


def damage_checkpoint(victim: Victim, run: Path) -> bool:
    """Cut the newest checkpoint's largest file in half, then SIGKILL."""
    steps = sorted((run / "checkpoints").glob("step-*"))
    files = [path for path in steps[-1].rglob("*") if path.is_file()] if steps else []
    sent = victim.send(signal.SIGKILL)
    if files:
        largest = max(files, key=lambda path: path.stat().st_size)
        with contextlib.suppress(FileNotFoundError):
            os.truncate(largest, largest.stat().st_size // 2)
    return sent


HARM: Mapping[str, Callable[[Victim, Path], bool]] = {
    "kill": kill,
    "term": terminate,
    "stop": freeze,
    "damage": damage_checkpoint,
}
"""`damage` is for the learner, which alone reads checkpoints; the others fit every role."""


def orphans(work: Path) -> list[str]:
    """Command lines of children of runs that live on although nobody should: those that name a
    folder under `work`, where the runs and their models are."""
    left = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        ours = role_of(command) is not None and any(str(work) in part for part in command)
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            left.append(" ".join(command)[:120])
    return left
