"""Runs that are killed with -9 and continued, beside one that never was: the same run."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from rltrain.bench.victims import victims
from tests.integration.conftest import SMALL, Run

pytestmark = [
    pytest.mark.e2e, pytest.mark.slow, pytest.mark.usefixtures("models"), pytest.mark.timeout(600),
]  # fmt: skip
STEPS, EVERY = 8, 3
OVERRIDES = (
    *SMALL, f"max_steps={STEPS}", "rollout.groups_per_step=2", "eval.tasks=8",
    "rewards.judge.witness=false", f"train.checkpoint_every={EVERY}", "track.wandb=disabled",
)  # fmt: skip
PATIENCE_S = 150
TAKEN_AT_A_MOMENT = ("ledger/issued", "ledger/in_flight", "tokens_per_s")
"""Metrics that depend on when they are read: the next leases may be out already, or not yet."""


@contextmanager
def started(command: list[str], work: Path, *overrides: str) -> Iterator[subprocess.Popen[bytes]]:
    """A front end, which is killed in the end if it still runs."""
    with (work / "front.log").open("ab") as log:
        front = subprocess.Popen(
            [*command, "train", *OVERRIDES, *overrides, "resume=auto"],
            cwd=work, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield front
        finally:
            kill_all(front)


def kill_all(front: subprocess.Popen[bytes]) -> None:
    """SIGKILL the front end; the kernel then ends the others, which is waited for."""
    family = [victim.process for victim in victims(front.pid)]
    front.kill()
    front.wait(10)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive, [process.cmdline() for process in alive]


def wait_for(what: Callable[[], Any], front: subprocess.Popen[bytes], poll_s: float = 0.02) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert front.poll() is None, "the front end ended"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(poll_s)
    return found


def learner_of(front: subprocess.Popen[bytes]) -> psutil.Process | None:
    return next((v.process for v in victims(front.pid) if v.role == "learner"), None)


def kill_in_a_save(front: subprocess.Popen[bytes], run: Path) -> int:
    """SIGKILL the learner while a checkpoint is half written; returns that checkpoint's step."""

    def half_written() -> tuple[psutil.Process, Path] | None:
        for folder in (run / "checkpoints").glob(".step-*.tmp"):
            learner = learner_of(front)
            if learner is not None:
                learner.send_signal(signal.SIGSTOP)
                if folder.is_dir() and not (folder / "COMPLETE.json").exists():
                    return learner, folder
                learner.send_signal(signal.SIGCONT)  # too late, the next one then
        return None

    learner, folder = wait_for(half_written, front, poll_s=0.001)
    learner.kill()
    return int(folder.name.removeprefix(".step-").removesuffix(".tmp"))


def rows_of(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def reached(run: Path, step: int) -> Callable[[], bool]:
    return lambda: any(row["step"] >= step for row in rows_of(run))


def untimed(run: Path) -> list[dict[str, Any]]:
    return [
        {
            key: value for key, value in row.items()
            if not key.startswith(("time", "gate_s/")) and key not in TAKEN_AT_A_MOMENT
        }
        for row in rows_of(run)
    ]  # fmt: skip


def table(run: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(run / "ledger.sqlite")) as db:
        return db.execute(query).fetchall()


def stored(run: Path) -> list[tuple[Any, ...]]:
    columns = ["step", "lease", "sample", "version", "reward", "completion_ids"]
    found = []
    for path in sorted((run / "rollouts").glob("*.parquet")):
        rows = pq.read_table(path, columns=columns).to_pylist()
        found += [tuple(map(str, row.values())) for row in rows]
    return found


def test_a_synchronous_run_that_was_killed_ends_as_if_it_had_not_been(
    rltrain: Run, command: list[str], workplace: Path
) -> None:
    settings = ("rollout.max_lag=0", "precision=bf16")
    done = rltrain("train", *OVERRIDES, *settings, "name=never-killed")
    assert done.returncode == 0, done.stderr[-3000:]
    whole, run = workplace / "runs" / "never-killed", workplace / "runs" / "killed"
    with started(command, workplace, *settings, "name=killed") as front:
        saving = kill_in_a_save(front, run)  # the learner alone: it is started again
        wait_for(reached(run, min(saving + 2, STEPS - 1)), front)
        kill_all(front)
    with started(command, workplace, *settings, "name=killed") as front:
        assert front.wait(PATIENCE_S) == 0, (workplace / "front.log").read_text()[-3000:]

    weights = Path("model") / "model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()
    assert [row["step"] for row in rows_of(run)] == list(range(1, STEPS + 1))
    assert untimed(run) == untimed(whole)
    assert stored(run) == stored(whole)
    for query in (
        "SELECT lease, task_id, position, samples, state, version, step FROM leases",
        "SELECT * FROM rollouts",
    ):
        assert table(run, query) == table(whole, query)
    resumed = [step for (step,) in table(run, "SELECT step FROM resumes ORDER BY id")]
    assert len(resumed) >= 2 and resumed[0] < saving, "a half-written checkpoint is none"
    assert not table(whole, "SELECT * FROM resumes")
    shutil.rmtree(whole)


def test_an_asynchronous_run_that_was_killed_loses_and_repeats_no_rollout(
    command: list[str], workplace: Path
) -> None:
    run = workplace / "runs" / "ahead"
    settings = ("rollout.max_lag=2", "name=ahead")
    with started(command, workplace, *settings) as front:
        wait_for(reached(run, EVERY + 1), front)
        learner = learner_of(front)
        assert learner is not None
        learner.kill()
        assert front.wait(PATIENCE_S) == 0, (workplace / "front.log").read_text()[-3000:]

    leases = [lease for (lease,) in table(run, "SELECT lease FROM leases ORDER BY lease")]
    assert leases == list(range(len(leases))), "no number is missing"
    fates = dict(table(run, "SELECT fate, COUNT(*) FROM rollouts GROUP BY fate"))
    issued = table(run, "SELECT SUM(samples) FROM leases")[0][0]
    assert sum(fates.values()) == issued and None not in fates
    keys = [row[1:3] for row in stored(run)]
    assert len(keys) == len(set(keys)) == fates["consumed"] == STEPS * 2 * 4
    assert [row["step"] for row in rows_of(run)] == list(range(1, STEPS + 1))
    assert max(row["lag/max"] for row in rows_of(run)) <= 2
    assert len(table(run, "SELECT * FROM resumes")) == 1
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [e for e in events if e["process"] == "learner" and e["kind"] == "resume"]


def test_a_complete_run_says_so_and_does_nothing(rltrain: Run, workplace: Path) -> None:
    run = workplace / "runs" / "ahead"
    before = (run / "ledger.sqlite").read_bytes()
    done = rltrain("train", *OVERRIDES, "rollout.max_lag=2", "name=ahead", "resume=auto")
    assert done.returncode == 0 and "is complete" in done.stderr, done.stderr[-2000:]
    assert (run / "ledger.sqlite").read_bytes() == before
