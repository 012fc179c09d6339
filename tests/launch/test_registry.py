"""Promotion and rollback of real run directories: who is let in, what is logged, what is whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rltrain.commands import promote, rollback
from rltrain.config.compose import load_config
from rltrain.errors import RltrainError, UserError
from rltrain.launch.registry import Bar, Refused, Registry
from rltrain.rundir import RunDir
from rltrain.track import eval_path, read_fact, write_fact
from rltrain.train.checkpoint import MARKER
from tests.report.synthetic import write_run


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A finished run, right on about 85 % of 300 held-out tasks, with a stand-in for weights."""
    path = write_run(tmp_path / "runs" / "first", steps=3, tasks=300)
    config = load_config(["experiment=segments_cpu", "name=first", "max_steps=3"])
    (path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    _flags(path, 0)
    weights = path / "checkpoints" / "step-00003" / "policy" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights of the first run")
    sums = {"policy/model.safetensors": hashlib.sha256(weights.read_bytes()).hexdigest()}
    marker = weights.parents[1] / MARKER
    marker.write_text(json.dumps({"step": 3, "sha256": sums}))
    return RunDir(path)


def _change(path: Path, column: str, values: list[object]) -> None:
    file = eval_path(path, "after")
    table = pq.read_table(file)
    at = table.schema.get_field_index(column)
    array = pa.array(values, type=table.schema.field(column).type)
    table = table.set_column(at, table.schema.field(column), array)
    pq.write_table(table, file)
    truth, flags = (table[name].to_pylist() for name in ("truth", "flags"))
    exact, hacks = [value == 1.0 for value in truth], [bool(found) for found in flags]
    known = read_fact(path, "eval_after") or {}
    shares = {"exact": sum(exact) / len(exact), "hack_rate": sum(hacks) / len(hacks)}
    write_fact(path, "eval_after", known | shares)


def _flags(path: Path, count: int) -> None:
    """Let exactly the first `count` held-out answers be flagged."""
    flag = [{"detector": "opt_out", "evidence": "no query", "action": "zero"}]
    n = pq.read_table(eval_path(path, "after")).num_rows
    _change(path, "flags", [flag if i < count else [] for i in range(n)])


def _worse(path: Path, by: int) -> None:
    """Let `by` right answers be wrong."""
    truth = pq.read_table(eval_path(path, "after"))["truth"].to_pylist()
    right = [i for i, value in enumerate(truth) if value == 1.0][:by]
    _change(path, "truth", [0.0 if i in right else value for i, value in enumerate(truth)])


def test_the_first_version_is_compared_with_its_own_start(run: RunDir, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", "segments")
    done = registry.promote(run, Bar(), by="ada", note="first")
    assert registry.current() == done["version"] == 1
    card = json.loads((registry.folder(1) / "card.json").read_text())
    assert card["compared_with"] == "its own start" and card["evidence"]["delta"]["mean"] > 0.5
    assert card["judge"]["kappa"] == 0.86 and card["rewards"]["stages"][0]["check"] == "format"
    assert (registry.weights(1) / "model.safetensors").read_bytes() == b"weights of the first run"


def test_an_equal_run_is_let_in_and_a_worse_or_a_gamed_one_is_not(
    run: RunDir, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "registry", "segments")
    registry.promote(run, Bar(), by="ada")
    assert registry.promote(run, Bar(), by="ada")["version"] == 2
    _worse(run.path, 15)  # 5 points
    with pytest.raises(Refused, match=r"exact match changes by -5\.0 points.*stays 2"):
        registry.promote(run, Bar(), by="ada")
    assert registry.promote(run, Bar(margin=0.2), by="ada")["version"] == 3
    _flags(run.path, 9)  # 3 points
    with pytest.raises(Refused, match=r"hacks change by \+3\.0 points"):
        registry.promote(run, Bar(), by="ada")
    what = [row["what"] for row in registry.decisions()]
    assert what == ["promote", "promote", "refuse", "promote", "refuse"]
    assert registry.current() == 3 and registry.versions() == [1, 2, 3]


def test_too_few_tasks_are_a_refusal(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="only 300 held-out tasks were answered by both, of 301"):
        Registry(tmp_path, "segments").promote(run, Bar(least=301), by="ada")


def test_rollback_goes_to_what_was_there_before_and_checks_it(run: RunDir, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", "segments")
    for _ in range(3):
        registry.promote(run, Bar(), by="ada")
    assert registry.rollback(None, by="bob", note="complaints")["version"] == 2
    assert registry.rollback(None, by="bob")["version"] == 1
    with pytest.raises(UserError, match="no version before 1 to go back to"):
        registry.rollback(None, by="bob")
    assert registry.rollback(3, by="bob")["over"] == 1
    (registry.folder(2) / "model" / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"version 2 of segments is damaged: model/model\.safe"):
        registry.rollback(2, by="bob")
    with pytest.raises(UserError, match="no whole version 9; there is 1, 2, 3"):
        registry.rollback(9, by="bob")
    assert registry.current() == 3


@pytest.mark.parametrize("harm", ["change", "remove", "tear"])
def test_a_log_that_was_tampered_with_is_noticed(run: RunDir, tmp_path: Path, harm: str) -> None:
    registry = Registry(tmp_path / "registry", "segments")
    for _ in range(3):
        registry.promote(run, Bar(), by="ada")
    lines = registry.log.read_text().splitlines()
    if harm == "change":
        lines[1] = lines[1].replace("ada", "eve")
    elif harm == "remove":
        del lines[1]
    else:
        lines[2] = lines[2][:-9]
    registry.log.write_text("\n".join(lines) + "\n")
    with pytest.raises(RltrainError, match=r"log\.jsonl, line \d: this or the line before"):
        registry.promote(run, Bar(), by="ada")
    assert registry.current() == 3 and registry.versions() == [1, 2, 3]


def test_a_killed_promotion_leaves_the_old_version(run: RunDir, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", "segments")
    registry.promote(run, Bar(), by="ada")
    half = registry.folder(2).with_name(".0002.tmp") / "model"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    assert registry.versions() == [1] and registry.current() == 1
    assert registry.promote(run, Bar(), by="ada")["version"] == 2
    weights = registry.weights(2) / "model.safetensors"
    assert weights.read_bytes() == b"weights of the first run"


def test_a_decision_that_was_interrupted_is_ended_by_the_next(run: RunDir, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", "segments")
    for _ in range(2):
        registry.promote(run, Bar(), by="ada")
    (registry.path / "current").write_text("1\n")  # killed between log and file
    assert registry.rollback(None, by="bob")["over"] == 2
    assert registry.current() == 1


def test_an_evaluation_that_does_not_add_up_is_refused(run: RunDir, tmp_path: Path) -> None:
    write_fact(run.path, "eval_after", (read_fact(run.path, "eval_after") or {}) | {"exact": 0.99})
    with pytest.raises(Refused, match="its check eval_after_recomputed fails"):
        Registry(tmp_path, "segments").promote(run, Bar(), by="ada")


def test_the_commands_say_what_they_did(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--registry", str(tmp_path / "registry")]
    promote.main([str(run.path), "segments", *where, "--note", "first"])
    assert "segments: version 1 is in service (exact match +" in capsys.readouterr().out
    promote.main([str(run.path), "segments", *where])
    rollback.main(["segments", *where, "--note", "too slow"])
    rollback.main(["segments", *where, "--log"])
    shown = capsys.readouterr().out
    assert "version 1 is in service again, in place of 2" in shown
    assert "rollback 1 over 2" in shown and "too slow" in shown
    with pytest.raises(UserError, match="is no name for a policy"):
        promote.main([str(run.path), "../evil", *where])
