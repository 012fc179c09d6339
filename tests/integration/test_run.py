"""A whole run: every file that a run directory promises, and numbers that agree with each other."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.integration.conftest import SMALL, Run

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("models")]


@pytest.fixture(scope="module")
def run_dir(rltrain: Run, workplace: Path) -> Path:
    done = rltrain("train", *SMALL, "name=whole", "track.wandb=offline")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "exact match" in done.stdout and "report.html" in done.stdout
    return workplace / "runs" / "whole"


@pytest.fixture(scope="module")
def summary(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


def test_a_run_leaves_every_file_that_it_promises(run_dir: Path) -> None:
    for name in (
        "config.yaml", "metrics.jsonl", "summary.json", "report.html", "ledger.sqlite",
        "checkpoints/step-00003/COMPLETE.json", "model/model.safetensors",
        "rollouts/step-00003.parquet", "eval/before.parquet", "eval/after.parquet",
        "logs/learner.log", "logs/worker-0.log", "logs/engine.log", "logs/judge.log",
    ):  # fmt: skip
        assert (run_dir / name).is_file(), name
    assert list((run_dir / "wandb").glob("offline-run-*/*.wandb"))


def test_every_rollout_is_accounted_for(run_dir: Path, summary: dict) -> None:
    ledger = summary["ledger"]
    assert ledger["issued"] == (
        ledger["consumed"] + sum(ledger["dropped"].values()) + ledger["in_flight"]
    )
    stored = sum(pq.read_metadata(p).num_rows for p in (run_dir / "rollouts").glob("*.parquet"))
    assert ledger["consumed"] == stored == 3 * 4 * 4
    assert ledger["in_flight"] == 0


def test_the_summary_has_what_it_promises(summary: dict) -> None:
    for when in ("before", "after"):
        assert {"exact", "valid", "n", "ci95"} <= summary["eval"][when].keys()
        assert summary["eval"][when]["n"] == 24
    assert {"format", "syntax", "schema"} <= summary["gates"].keys()
    assert {"opt_out", "tag_catch_all", "over_broad"} <= summary["flags"].keys()
    assert {"kappa", "n"} <= summary["judge"].keys()
    assert {"setup_s", "build_s", "train_s", "generate_s", "learn_s", "sync_s"} <= (
        summary["timing"].keys()
    )
    assert summary["staleness"]["max"] <= 1
    assert summary["mismatch"]["mean_abs_logprob"] is not None
    assert summary["engine"]["name"] == "vllm" and summary["engine"]["version"]
    assert summary["seed"] == 0 and summary["versions"]["torch"]


def test_on_the_same_weights_trainer_and_engine_agree(run_dir: Path) -> None:
    """Of a lag above 0 nothing can be asked: there the policy itself has changed."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    gaps = [row[key] for row in rows if (key := "mismatch/mean_abs_logprob/lag_0") in row]
    assert gaps and max(gaps) < 1e-4


def test_the_engine_serves_what_the_learner_saved(run_dir: Path) -> None:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["time/push_probe_mean_abs"] < 1e-3 for row in rows)


def test_a_second_run_of_the_same_name_overwrites_nothing(
    rltrain: Run, workplace: Path, run_dir: Path
) -> None:
    before = (run_dir / "summary.json").read_text()
    done = rltrain("train", *SMALL, "name=whole", "max_steps=1", "rollout.max_lag=0")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (run_dir / "summary.json").read_text() == before
    second = json.loads((workplace / "runs" / "whole-2" / "summary.json").read_text())
    assert second["staleness"]["max"] == 0
    assert second["timing"]["build_s"] < 5, "nothing is built again"


def test_the_report_can_be_written_again(rltrain: Run, run_dir: Path) -> None:
    (run_dir / "report.html").unlink()
    done = rltrain("report", str(run_dir))
    assert done.returncode == 0 and (run_dir / "report.html").stat().st_size > 1_000_000


def test_eval_of_the_run_repeats_its_own_figure(
    rltrain: Run, run_dir: Path, summary: dict
) -> None:
    done = rltrain("eval", str(run_dir))
    assert done.returncode == 0, done.stderr[-2000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["exact"] == summary["eval"]["after"]["exact"]
    assert facts["valid"] == summary["eval"]["after"]["valid"]
