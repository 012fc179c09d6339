"""summary.json: every number worked out here a second time, in another way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from rltrain.errors import UserError
from rltrain.report import summarize, write_summary
from rltrain.track import JsonlTracker, read_fact, read_metrics, read_rollouts, write_fact

Copy = Callable[[], Path]


def test_a_complete_run_has_every_promised_number(finished: Path) -> None:
    summary = summarize(finished)
    for when in ("before", "after"):
        assert {"exact", "valid", "n", "ci95"} <= summary["eval"][when].keys()
        assert None not in [summary["eval"][when][key] for key in ("exact", "valid", "n", "ci95")]
    assert summary["judge"]["kappa"] == 0.86
    assert summary["judge"]["ci95"] == [0.82, 0.9]
    for name in ("setup_s", "build_s", "train_s", "generate_s", "learn_s", "sync_s"):
        assert summary["timing"][name] > 0
    assert summary["engine"]["name"] == "vllm"
    assert summary["seed"] == 7
    assert summary["versions"]["vllm"] == "0.32.0"
    assert summary["problems"] == []
    assert set(summary["checks"].values()) == {True}


def test_first_and_last_are_means_over_a_tenth_of_the_steps_and_say_which(finished: Path) -> None:
    summary = summarize(finished)
    rows = read_metrics(finished / "metrics.jsonl").rows
    assert summary["window"] == {"steps": 4, "first": [1, 4], "last": [37, 40]}
    gate = summary["gates"]["syntax"]
    assert gate["first"] == pytest.approx(fmean(row["gate/syntax/pass"] for row in rows[:4]))
    assert gate["last"] == pytest.approx(fmean(row["gate/syntax/pass"] for row in rows[36:]))
    flag = summary["flags"]["match_everything"]
    first = fmean(row.get("flag/match_everything", 0.0) for row in rows[:4])
    assert flag["first"] == pytest.approx(first)


def test_a_detector_that_never_found_anything_has_rate_zero_not_null(finished: Path) -> None:
    assert summarize(finished)["flags"]["refusal"] == {"first": 0.0, "last": 0.0, "found": 0}


def test_the_change_of_the_evaluation_is_paired_and_agrees_with_both_ends(finished: Path) -> None:
    result = summarize(finished)["eval"]
    delta = result["delta"]
    assert delta["n"] == 120
    assert delta["mean"] == pytest.approx(result["after"]["exact"] - result["before"]["exact"])
    assert delta["ci95"][0] < delta["mean"] < delta["ci95"][1]
    hacks = result["hack_delta"]["mean"]
    assert hacks == pytest.approx(result["after"]["hack_rate"] - result["before"]["hack_rate"])


def test_staleness_is_weighted_by_rollouts(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    tracker.log(1, {"rollouts/count": 10, "lag/mean": 0.0, "lag/max": 0})
    tracker.log(2, {"rollouts/count": 30, "lag/mean": 2.0, "lag/max": 3})
    tracker.close()
    assert summarize(tmp_path)["staleness"] == {"mean": 1.5, "max": 3.0}


def test_flag_counts_and_the_judge_table_come_from_the_recorded_rollouts(finished: Path) -> None:
    rows = [row for path in (finished / "rollouts").iterdir() for row in read_rollouts(path)]
    summary = summarize(finished)
    found = sum(flag["detector"] == "keyword_stuffing" for row in rows for flag in row["flags"])
    assert summary["flags"]["keyword_stuffing"]["found"] == found > 0
    fooled = sum(
        gate["gate"] == "judge" and gate["passed"] and row["truth"] == 0.0
        for row in rows for gate in row["gates"]
    )
    assert summary["judge"]["on_policy"]["judge_only"] == fooled > 0


def test_a_ledger_that_does_not_add_up_is_called_that(copy: Copy) -> None:
    run = copy()
    ledger = read_fact(run, "ledger")
    assert ledger is not None
    write_fact(run, "ledger", ledger | {"issued": ledger["issued"] + 1})
    summary = summarize(run)
    assert summary["ledger"]["conserved"] is False
    assert summary["checks"]["ledger_conserved"] is False


def test_a_rollout_file_that_vanished_is_noticed(copy: Copy) -> None:
    run = copy()
    (run / "rollouts" / "step-00003.parquet").unlink()
    checks = summarize(run)["checks"]
    assert checks["rollouts_recorded"] is False
    assert checks["consumed_recorded"] is False


def test_an_evaluation_that_claims_more_than_was_recorded_is_noticed(copy: Copy) -> None:
    run = copy()
    fact = read_fact(run, "eval_after")
    assert fact is not None
    write_fact(run, "eval_after", fact | {"exact": fact["exact"] + 0.01})
    checks = summarize(run)["checks"]
    assert checks["eval_after_recomputed"] is False
    assert checks["eval_before_recomputed"] is True


def test_a_group_trained_on_twice_and_a_lost_step_are_noticed(copy: Copy) -> None:
    run = copy()
    first = run / "rollouts" / "step-00001.parquet"
    (run / "rollouts" / "step-00099.parquet").write_bytes(first.read_bytes())
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:9] + lines[10:]))
    checks = summarize(run)["checks"]
    assert checks["no_lease_twice"] is False
    assert checks["steps_consecutive"] is False


def test_a_crashed_run_has_nulls_and_says_what_is_missing(copy: Copy) -> None:
    run = copy()
    for part in ("eval_after", "timing", "ledger", "judge"):
        (run / "facts" / f"{part}.json").unlink()
    (run / "eval" / "after.parquet").write_bytes(b"PAR1 torn")
    with (run / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 41, "rew')
    summary = summarize(run)
    assert summary["eval"]["after"]["exact"] is None
    assert summary["eval"]["delta"] is None
    assert summary["timing"]["train_s"] is None
    assert summary["judge"]["kappa"] is None
    assert summary["ledger"]["source"] == "metrics of step 40"
    assert summary["ledger"]["conserved"] is True
    text = " ".join(summary["problems"])
    for word in ("eval_after.json is missing", "after.parquet cannot be read", "1 torn line"):
        assert word in text


def test_an_empty_directory_gives_nulls_and_a_missing_one_an_error(tmp_path: Path) -> None:
    summary = summarize(tmp_path)
    assert summary["steps"] == {"done": 0, "planned": None}
    assert summary["ledger"]["conserved"] is None
    assert summary["window"]["first"] is None
    with pytest.raises(UserError, match="no run directory"):
        summarize(tmp_path / "nowhere")


def test_a_loss_that_diverged_is_a_failed_check_and_the_file_stays_json(copy: Copy) -> None:
    run = copy()
    tracker = JsonlTracker(run / "metrics.jsonl")
    tracker.log(41, {"loss": float("nan"), "mismatch/k3": float("inf"), "lag/mean": 0.0})
    tracker.close()
    summary = json.loads(write_summary(run).read_text())
    assert summary["checks"]["metrics_finite"] is False
    assert summary["mismatch"]["k3"] is None


def test_faults_are_the_ledgers_which_also_knows_groups_that_were_lost_whole(copy: Copy) -> None:
    run = copy()
    ledger = read_fact(run, "ledger")
    assert ledger is not None
    assert summarize(run)["faults"] == {"engine": ledger["dropped"]["fault:engine"]}
    (run / "facts" / "ledger.json").unlink()
    rows = read_metrics(run / "metrics.jsonl").rows
    assert summarize(run)["faults"] == {"engine": sum(row.get("faults/engine", 0) for row in rows)}
