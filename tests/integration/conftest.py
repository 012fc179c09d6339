"""Whole commands in real processes. Models are built once per session, as small as they can be:
these tests are about the machinery, not about learning."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = (
    "experiment=segments_cpu",
    "model.warmup.steps=200",
    "model.warmup.examples=1000",
    "model.warmup.noise=0",
    "environment.args.train_clauses=[1,0,0]",  # easy enough to be right now and then
    "rewards.judge.tiny.steps=30",
    "rewards.judge.tiny.examples=2000",
    "rewards.judge.calibrate=40",
    "eval.tasks=24",
    "rollout.groups_per_step=4",
    "rollout.group_size=4",
    "max_steps=3",
    "track.wandb=disabled",
    "precision=fp32",
)
"""Overrides that make a run of under a minute once the models are there."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that all runs of the session share: `runs/` and the model cache."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="session")
def command(workplace: Path) -> list[str]:
    """Start of every command line: the installed script, run by this interpreter."""
    return [sys.executable, "-m", "rltrain"]


@pytest.fixture(scope="session")
def rltrain(workplace: Path, command: list[str]) -> Run:
    """Run a command to its end: `rltrain("train", "seed=1")`."""

    def run(*args: str, timeout: float = 280, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *args],
            cwd=workplace,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture(scope="session")
def models(rltrain: Run, workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The embedded policy and judge in the session's cache. Where several processes run the tests,
    one builds and the others copy."""
    base = tmp_path_factory.getbasetemp()
    together = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    built, own = together / "models", workplace / ".cache"
    with open(together / "models.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            done = rltrain("build", *SMALL)
            assert done.returncode == 0, done.stderr[-2000:]
            shutil.copytree(own, built)
    if not own.exists():
        shutil.copytree(built, own)
