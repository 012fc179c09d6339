"""The private folder that one push passes through, and the removal of those that were left behind.

A process killed with SIGKILL cannot remove its folder, and in /dev/shm that folder is memory. So
each folder holds a file that its owner keeps locked; the kernel lets go of the lock when the owner
dies, however it dies and in whichever PID namespace, and the next push removes what nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rltrain.config.rollout import SyncConfig

PREFIX = "rltrain-push-"
LOCK = ".held"


@contextlib.contextmanager
def passage(config: SyncConfig, run_dir: Path) -> Iterator[str]:
    """A private folder (0700) for one push, in memory where the system has /dev/shm."""
    shm = Path("/dev/shm")
    base = Path(config.folder) if config.folder else shm if shm.is_dir() else run_dir
    base.mkdir(parents=True, exist_ok=True)
    remove_abandoned(base)
    with (
        tempfile.TemporaryDirectory(prefix=PREFIX, dir=base) as folder,
        (Path(folder) / LOCK).open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def remove_abandoned(base: Path) -> list[Path]:
    """Remove the push folders under `base` whose owner is gone; returns them. A folder of another
    user, or one without its lock file (just being made), is left alone."""
    removed = []
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed
