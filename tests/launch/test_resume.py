"""Which directory a run gets, who holds it, and what may differ when it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rltrain.config import RunConfig
from rltrain.errors import UserError
from rltrain.launch.attempts import FILE, Attempts
from rltrain.launch.resume import open_run
from rltrain.rundir import RunDir
from rltrain.track import write_fact

TREE: dict[str, Any] = {
    "name": "again", "max_steps": 3, "model": {"source": "tiny"},
    "environment": {"entry": "somewhere:build", "args": {"level": 1}},
    "rewards": {"stages": [{"check": "answered"}]},
}  # fmt: skip
HOLDER = """
import sys, time
from rltrain.config import RunConfig
from rltrain.launch.resume import open_run
with open_run(RunConfig.model_validate_json(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def config_of(folder: Path, **changes: Any) -> RunConfig:
    return RunConfig.model_validate({**TREE, "runs_dir": str(folder), **changes})


def test_without_a_run_of_that_name_auto_starts_one_and_then_continues_it(tmp_path: Path) -> None:
    config = config_of(tmp_path, resume="auto")
    with open_run(config) as first:
        assert not first.resumed and not first.complete
    with open_run(config) as second:
        assert second.resumed and not second.complete and second.run.path == first.run.path
    write_fact(first.run.path, "timing", {"wall_s": 1.0})
    with open_run(config) as third:
        assert third.complete
    with open_run(config_of(tmp_path)) as other:
        assert other.run.path.name == "again-2", "without resume nothing is touched"


def test_another_config_is_refused_and_the_key_is_named(tmp_path: Path) -> None:
    with open_run(config_of(tmp_path)):
        pass
    for changes, text in (
        ({"seed": 4}, "seed=0, not 4"),
        ({"train": {"lr": 1e-4}}, r"train.lr=1e-06, not 0.0001"),
        ({"environment": {"entry": "somewhere:build", "args": {"level": 2}}},
         "environment.args.level=1, not 2"),
        ({"rewards": {"stages": [{"check": "answered"}, {"check": "right"}]}}, "rewards.stages"),
    ):  # fmt: skip
        with (
            pytest.raises(UserError, match=text),
            open_run(config_of(tmp_path, resume="auto", **changes)),
        ):
            pass


def test_what_says_how_patiently_a_run_is_made_may_differ_and_is_taken_over(tmp_path: Path) -> None:
    with open_run(config_of(tmp_path)):
        pass
    changed = config_of(
        tmp_path, resume="auto", supervise={"stall_s": 5}, rollout={"patience_s": 9, "retries": 0},
        engine={"port": 9999}, train={"checkpoint_every": 2}, track={"wandb": "disabled"},
    )  # fmt: skip
    with open_run(changed) as opened:
        assert opened.run.load_config() == changed


def test_two_front_ends_cannot_hold_one_run(tmp_path: Path) -> None:
    config = config_of(tmp_path, resume="auto")
    code = [sys.executable, "-c", HOLDER, config.model_dump_json()]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            for changes in ({"resume": "auto"}, {"overwrite": True}):
                with (
                    pytest.raises(UserError, match=rf"in use by .*process {holder.pid}\)"),
                    open_run(config_of(tmp_path, **changes)),
                ):
                    pass
        finally:
            holder.kill()
            holder.wait(10)
    with open_run(config) as opened:
        assert opened.resumed, "a killed holder holds nothing"


def test_overwriting_and_continuing_at_once_is_refused(tmp_path: Path) -> None:
    both = config_of(tmp_path, resume="auto", overwrite=True)
    with pytest.raises(UserError, match="contradict"), open_run(both):
        pass


def test_a_folder_that_is_no_run_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "thesis.tex").write_text("mine")
    config = config_of(tmp_path, resume="auto")
    with pytest.raises(UserError, match=r"no config\.yaml"), open_run(config):
        pass
    assert (tmp_path / "again" / "thesis.tex").read_text() == "mine"


def test_seconds_add_up_over_attempts_also_over_one_that_was_killed(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    begun = time.time() - 100
    killed = {"started": begun, "ended": None, "seconds": {"build_s": 5.0},
              "open": ["train_s", begun + 10]}  # fmt: skip
    (tmp_path / FILE).write_text(json.dumps([killed]))
    run.metrics.write_text("")
    os.utime(run.metrics, (begun + 40, begun + 40))
    attempts = Attempts(run)
    assert attempts.number == 2
    attempts.phase("train_s")
    attempts.phase(None)
    attempts.end()
    seconds = attempts.seconds()
    assert seconds["build_s"] == 5.0
    assert 30 <= seconds["train_s"] < 40, "until the last sign of life, and a little more"
    assert 40 <= seconds["wall_s"] < 50
    assert Attempts(run).seconds()["train_s"] == pytest.approx(seconds["train_s"])
