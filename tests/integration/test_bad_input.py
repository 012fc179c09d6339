"""Bad input and broken parts: one clear sentence, the right exit code, no process left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.conftest import SMALL, Run

pytestmark = pytest.mark.e2e

NO_WARMUP = tuple(arg for arg in SMALL if not arg.startswith("model.warmup"))
"""For pretrained models, which have no warm-up."""


def children_of_runs(workplace: Path) -> list[str]:
    """Command lines of processes that belong to runs of this session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(workplace) in line and "rltrain" in line:
                found.append(line)
    return found


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that starts with `error: `; fails if there is a traceback or another count."""
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr[-3000:]
    return lines[0]


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("rollout.group_sise=3",), "did you mean 'rollout.group_size'?"),
        (("rollout.group_size=many",), "config rollout.group_size"),
        (("rollout.group_size=1",), "rollout.group_size (1) must be at least 2"),
        (("algo.loss=ppo_clop",), "is not one of ppo_clip"),
        (("model=local", "model.name=/nowhere"), "'/nowhere' is neither a folder here"),
        (("environment.entry=nowhere:build",), "cannot be loaded"),
        (("rewards.stages=[{check: formta}]",), "format"),
        (("+detectors.rollout.opt_in.action=zero",), "opt_out"),
        (("eval.split=tset",), "test"),
        (("train.device=cuda",), "no GPU"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    rltrain: Run, workplace: Path, args: tuple[str, ...], part: str
) -> None:
    if args == ("train.device=cuda",):
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    small = NO_WARMUP if "model=local" in args else SMALL
    done = rltrain("train", *small, "name=mistake", *args)
    assert done.returncode == 2, (done.stdout, done.stderr[-2000:])
    assert part in error_of(done)
    assert children_of_runs(workplace) == []


def test_commands_refuse_what_is_not_there(rltrain: Run, workplace: Path) -> None:
    for args in (
        ("report", "runs/nothing"), ("export", "runs/nothing"), ("eval", "runs/nothing"),
        ("score", "nothing.jsonl"), ("tasks", "--split", "nothing"), ("tarin",),
    ):  # fmt: skip
        done = rltrain(*args)
        assert done.returncode == 2, args
        error_of(done)


def test_a_taken_port_is_named(rltrain: Run, models: None) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = rltrain("train", *SMALL, "name=port", "rewards=executed", f"engine.port={port}")
    assert done.returncode == 2
    assert f"port {port}" in error_of(done) and "engine.port=0" in error_of(done)


def test_an_unreachable_judge_stops_the_run_before_training(
    rltrain: Run, workplace: Path, models: None
) -> None:
    args = ("rewards.judge.endpoint=http://127.0.0.1:9/v1", "rewards.judge.backoff_s=0")
    done = rltrain("train", *SMALL, "name=nojudge", *args)
    assert done.returncode in (2, 3)
    assert "http://127.0.0.1:9/v1" in error_of(done)
    assert not (workplace / "runs" / "nojudge" / "metrics.jsonl").exists()
    assert (workplace / "runs" / "nojudge" / "report.html").is_file()
    assert children_of_runs(workplace) == []


def test_an_engine_that_dies_at_start_is_explained(
    rltrain: Run, workplace: Path, models: None
) -> None:
    args = ("rewards=executed", "engine.extra_args=[--no-such-flag]")
    done = rltrain("train", *SMALL, "name=deadengine", *args)
    assert done.returncode == 3
    assert "no-such-flag" in error_of(done) and "engine.log" in error_of(done)
    assert children_of_runs(workplace) == []


def test_a_damaged_model_is_not_taken_for_whole(
    rltrain: Run, workplace: Path, models: None
) -> None:
    policy = next((workplace / ".cache" / "rltrain").glob("policy-*"))
    broken = workplace / "broken"
    shutil.copytree(policy, broken, dirs_exist_ok=True)
    (broken / "model.safetensors").write_bytes(b"half")
    args = ("model=local", f"model.name={broken}", "model.max_length=256", "rewards=executed")
    done = rltrain("train", *NO_WARMUP, "name=broken", *args)
    assert done.returncode in (2, 3)
    error_of(done)
    assert children_of_runs(workplace) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_one_sentence(rltrain: Run, tmp_path: Path, models: None) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk]).returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    try:
        done = rltrain("train", *SMALL, "name=full", "rewards=executed", f"runs_dir={disk}")
        assert done.returncode in (2, 3), done.stderr[-2000:]
        assert "No space left" in error_of(done)
        assert not list(disk.glob("**/COMPLETE.json"))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["front end", "engine", "worker"])
def test_a_killed_process_takes_the_run_down_cleanly_where_none_is_started_again(
    command: list[str], workplace: Path, models: None, victim: str
) -> None:
    name = f"kill-{victim.replace(' ', '')}"
    args = ("max_steps=2000", "rewards=executed", "supervise.max_restarts=0", f"name={name}")
    process = subprocess.Popen(
        [*command, "train", *SMALL, *args],
        cwd=workplace, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics = workplace / "runs" / name / "metrics.jsonl"
    try:
        _wait(lambda: metrics.is_file() and metrics.stat().st_size > 0, 120)
        if victim == "front end":
            process.kill()
        else:
            os.kill(_pid(workplace, name, victim), signal.SIGKILL)
        process.wait(60)
        _wait(lambda: children_of_runs(workplace) == [], 15)
    finally:
        process.kill()
        stderr = process.communicate()[1]
    if victim != "front end":
        assert process.returncode == 3, stderr[-2000:]
        assert "Traceback" not in stderr
        assert (metrics.parent / "report.html").is_file()
        assert json.loads((metrics.parent / "summary.json").read_text())["steps"]["done"] >= 1


def _pid(workplace: Path, name: str, victim: str) -> int:
    sign = {"engine": "engine_boot", "worker": "launch.child worker"}[victim]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if sign in line and str(workplace) in line and (victim == "engine" or name in line):
            return int(entry.name)
    raise AssertionError(f"no {victim} process found")


def _wait(condition: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)
