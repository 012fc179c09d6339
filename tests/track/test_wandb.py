"""wandb for real, offline: what is in its file after the process was killed, and what is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rltrain.config.algo import TrackConfig
from rltrain.track import WandbTracker

KILLED = """
import os, pathlib, sys, time
from rltrain.config.algo import TrackConfig
from rltrain.track import WandbTracker, to_rows
from rltrain.types import Group
from tests.report.synthetic import make_task, rollout
tracker = WandbTracker(pathlib.Path(sys.argv[1]), TrackConfig(rollouts_per_step=2), name="killed",
                       config={"seed": 3, "args": {"api_key": "sk-secret-1"}})
for step in (1, 2, 3):
    tracker.log(step, {"reward/mean": step / 10, "gate/syntax/pass": 1 - step / 10, "loss": 0.5})
task = make_task(1)
group = Group(lease=1, task=task, members=tuple(rollout(task, k) for k in range(5)))
tracker.rollouts(3, to_rows([group], step=3, version=2))
assert tracker.lost == 0
time.sleep(1.8)
os.kill(os.getpid(), 9)
"""


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    clean |= {"PYTHONPATH": os.getcwd()} | environment
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=clean, capture_output=True, text=True, timeout=90,
    )


def recorded(folder: Path) -> dict[str, Any]:
    """What wandb's own reader finds in the offline run."""
    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--summary"]
    done = subprocess.run([*command, "--json", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_curves_tables_and_no_secret_are_on_disk_after_a_kill(tmp_path: Path) -> None:
    done = run_python(KILLED, str(tmp_path))
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = recorded(tmp_path)
    summary = run["summary"]
    assert summary["reward/mean"] == {"last": pytest.approx(0.3), "max": pytest.approx(0.3)}
    assert summary["gate/syntax/pass"] == {"last": pytest.approx(0.7), "max": pytest.approx(0.9)}
    assert summary["rollouts/sample"]["nrows"] == 2
    assert run["config"] == {"seed": 3, "args": {"api_key": "(hidden)"}}
    for path in (tmp_path / "wandb").rglob("*"):
        assert not path.is_file() or b"sk-secret-1" not in path.read_bytes()


ONLINE = """
import pathlib, sys
from rltrain.config.algo import TrackConfig
from rltrain.track import WandbTracker
said = []
tracker = WandbTracker(pathlib.Path(sys.argv[1]), TrackConfig(wandb="online"), name="x", config={},
                       warn=said.append, connect_s=1.0)
tracker.log(1, {"loss": 1.0})
tracker.close()
assert tracker.mode == "offline", tracker.mode
assert len(said) == 1 and "\\n" not in said[0] and "logging offline instead" in said[0], said
assert "a" * 40 not in said[0]
"""


def test_online_without_a_network_goes_on_offline_with_one_warning(tmp_path: Path) -> None:
    done = run_python(
        ONLINE, str(tmp_path), WANDB_API_KEY="a" * 40, WANDB_BASE_URL="http://127.0.0.1:9"
    )
    assert done.returncode == 0, done.stderr


def test_disabled_writes_nothing_and_takes_everything(tmp_path: Path) -> None:
    tracker = WandbTracker(tmp_path, TrackConfig(wandb="disabled"), name="x", config={})
    tracker.log(1, {"loss": 1.0})
    tracker.rollouts(1, [])
    tracker.finish({})
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_whatever_wandb_raises_is_one_warning_and_a_count(tmp_path: Path) -> None:
    class Failing:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("service died\nwith a long story")

    said: list[str] = []
    tracker = WandbTracker(
        tmp_path, TrackConfig(wandb="disabled"), name="x", config={}, warn=said.append
    )
    tracker._run = Failing()
    for step in (1, 2, 3):
        tracker.log(step, {"loss": 1.0})
    tracker.close()
    assert said[0] == "wandb failed (RuntimeError: service died); the run goes on"
    assert said[1].startswith("wandb lost 4 record(s)")


CONTINUED = """
import pathlib, sys
from rltrain.config.algo import TrackConfig
from rltrain.track import WandbTracker, finish_wandb
folder, first = pathlib.Path(sys.argv[1]), int(sys.argv[2])
tracker = WandbTracker(folder, TrackConfig(), name="again", config={"seed": 1})
tracker.log(first, {"loss": 1.0 / first})
tracker.close()
if first > 1:
    finish_wandb(folder, TrackConfig(), config={"seed": 1}, summary={"eval": {"exact": 0.75}})
"""


def test_a_run_that_goes_on_is_the_same_run_and_gets_its_summary_in_the_end(
    tmp_path: Path,
) -> None:
    for first in (1, 2):
        done = run_python(CONTINUED, str(tmp_path), str(first))
        assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    # offline-run-TIME-ID, and -1 behind it where two of them began within one second.
    assert len({path.name.split("-")[3] for path in runs}) == 1, "one id"
    (last,) = runs[-1].glob("run-*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--summary"]
    shown = subprocess.run([*command, "--json", str(last)], capture_output=True, text=True)
    assert json.loads(shown.stdout)["summary"]["final"] == {"eval": {"exact": 0.75}}
