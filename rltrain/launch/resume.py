"""Opens a run's directory: a new one, or with `resume=auto` the one of this name to go on with.

One front end holds a run's directory at a time; the kernel lets go of the lock when that one dies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from rltrain.config import RunConfig
from rltrain.errors import UserError
from rltrain.rundir import RunDir, create_run
from rltrain.track import read_fact
from rltrain.track.files import write_text

LOCK = "lock"
MAY_DIFFER = (
    "resume", "overwrite", "runs_dir", "cache_dir", "track", "supervise", "rollout.timeout_s",
    "rollout.retries", "rollout.patience_s", "rollout.pause_s", "rollout.max_pauses",
    "rewards.judge.timeout_s", "rewards.judge.retries",
    "rewards.judge.backoff_s", "rewards.judge.patience_s", "rewards.judge.concurrency",
    "rewards.judge.cache_file", "rewards.judge.price", "rewards.judge.require",
    "mismatch.warn", "mismatch.stop", "mismatch.patience",
    "engine.port", "engine.host", "engine.start_timeout_s", "train.keep_checkpoints",
    "train.checkpoint_every",
)  # fmt: skip
"""Keys, or sections, that decide where and how patiently a run is made, not what it computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A run directory that this process holds."""

    run: RunDir
    resumed: bool
    """Whether it was begun by an earlier front end."""

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to do: the timing is written last."""
        return self.resumed and read_fact(self.run.path, "timing") is not None


@contextmanager
def open_run(config: RunConfig) -> Iterator[Opened]:
    """The run's directory, locked until the block ends.

    Raises `UserError` if another process holds it, or if it was begun with another config."""
    base = Path(config.runs_dir) / config.name
    if config.resume and config.overwrite:
        raise UserError("resume=auto and overwrite=true contradict each other; give one of them")
    resumed = config.resume == "auto" and _begun(base)
    if config.overwrite and base.is_dir():
        with _locked(base):
            shutil.rmtree(base, ignore_errors=True)
    run = RunDir(base.resolve()) if resumed else create_run(config)
    with _locked(run.path):
        if resumed:
            require_same(run.load_config(), config, run.path)
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            write_text(run.config_file, text)
        yield Opened(run=run, resumed=resumed)


def require_same(old: RunConfig, new: RunConfig, where: Path) -> None:
    """Raise `UserError`, which names the first key, if the configs differ in anything that decides
    what is computed."""
    before, after = (dict(_flat(config.model_dump(mode="json"))) for config in (old, new))
    for key in sorted(before.keys() | after.keys()):
        free = any(key == name or key.startswith(f"{name}.") for name in MAY_DIFFER)
        if not free and before.get(key) != after.get(key):
            raise UserError(
                f"{where} was begun with {key}={before.get(key)!r}, not {after.get(key)!r}; "
                "resume=auto continues a run as it is, so take that value or another name"
            )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _begun(base: Path) -> bool:
    if not base.exists():
        return False
    if not (base / "config.yaml").is_file() and not any(p.is_file() for p in base.rglob("*")):
        shutil.rmtree(base)  # killed while its folders were made
        return False
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("a+") as file:
        _hold(file, folder)
        yield


def _hold(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        raise UserError(
            f"{folder} is in use by another rltrain (process {owner}); wait for its end, stop it, "
            "or give this run another name"
        ) from error
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()))
    file.flush()
