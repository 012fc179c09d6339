"""Whole offline runs in real processes, from the command line to the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.offline.offline_makers import make_source

pytestmark = pytest.mark.e2e


def run(folder: Path, policy: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    source = make_source(folder, policy)
    command = [
        sys.executable, "-m", "rltrain", "train", "experiment=segments_cpu", "model=local",
        f"model.name={policy}", "model.max_length=128", "track.wandb=disabled", "max_steps=4",
        "precision=fp32", "algo.batch_size=8", f"algo.data=run:{source.path}", *overrides,
    ]  # fmt: skip
    return subprocess.run(
        command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, timeout=280
    )


def test_a_reward_model_from_the_command_line_to_the_report(policy: Path, tmp_path: Path) -> None:
    done = run(tmp_path, policy, "algo=reward_model", "name=rm")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "held-out pairs right" in done.stdout and "rewards=reward_model" in done.stdout
    folder = tmp_path / "runs" / "rm"
    for name in (
        "config.yaml", "data.jsonl", "metrics.jsonl", "summary.json", "report.html",
        "model/model.safetensors", "checkpoints/step-00004/COMPLETE.json", "logs/learner.log",
    ):  # fmt: skip
        assert (folder / name).is_file(), name
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["problems"] == [], "nothing that such a run has not got is called missing"
    assert summary["steps"] == {"done": 4, "planned": 4}
    assert summary["data"]["groups"] == 40 and summary["offline"]["method"] == "reward_model"
    report = (folder / "report.html").read_text()
    assert "The reward model ranks" in report and "What it learned from" in report


def test_dpo_is_evaluated_before_and_after_through_the_engine(policy: Path, tmp_path: Path) -> None:
    done = run(
        tmp_path, policy, "algo=dpo", "name=dpo", "lora=rank16", "eval.tasks=12",
        "rollout.max_new_tokens=16",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "exact match" in done.stdout
    folder = tmp_path / "runs" / "dpo"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["problems"] == []
    for when in ("before", "after"):
        assert summary["eval"][when]["n"] == 12
        assert summary["checks"][f"eval_{when}_recomputed"] is True
    assert (folder / "adapter" / "adapter_config.json").is_file()
    assert summary["tokens"]["trained"] > 0 and summary["timing"]["train_s"] > 0


def test_a_mistake_is_one_sentence_and_leaves_no_run_behind(policy: Path, tmp_path: Path) -> None:
    done = run(tmp_path, policy, "algo=dpo", "name=x", "algo.select.min_margin=2")
    assert done.returncode == 2
    assert "error: nothing could be selected from 80 rollouts" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "runs" / "x").exists()
