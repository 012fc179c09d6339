"""Each way in which a run can be damaged or wrong is one sentence of the audit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rltrain.report.audit import audit
from rltrain.track import read_fact, rollouts_path, write_fact, write_rollouts
from tests.makers import make_group
from tests.report.ledgers import append_metrics, change, write_sound_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_sound_run(tmp_path / "run")


def _twice_in_a_file(run: Path) -> None:
    groups = [make_group([1.0, 0.0], lease=0), make_group([1.0, 0.0], lease=0)]
    write_rollouts(rollouts_path(run, 1), groups, step=1, version=0)


def _drop_a_metrics_row(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:1] + lines[2:]))


def _other_step(run: Path) -> None:
    shutil.copy(rollouts_path(run, 1), rollouts_path(run, 2))


def _fact(run: Path) -> None:
    fact = read_fact(run, "ledger")
    assert fact is not None
    write_fact(run, "ledger", fact | {"consumed": 16})


WEIGHTS = "checkpoints/step-00003/policy/model.safetensors"
LEDGER = "ledger.sqlite"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a rollout that is nowhere": (
        lambda run: change(run, "DELETE FROM rollouts WHERE lease = 2 AND sample = 1"),
        "does not add up: 24 issued",
    ),
    "a rollout too many": (
        lambda run: change(run, "INSERT INTO rollouts VALUES (2, 9, 1, 'consumed')"),
        "hold another number of rollouts than they issued (lease 2)",
    ),
    "a rollout without a lease": (
        lambda run: change(run, "INSERT INTO rollouts VALUES (77, 0, 1, 'consumed')"),
        "belong to no lease (lease 77)",
    ),
    "a fate that is open in a closed lease": (
        lambda run: change(run, "UPDATE rollouts SET fate = NULL WHERE lease = 1 AND sample = 0"),
        "rollouts without a fate (lease 1)",
    ),
    "consumed while open": (
        lambda run: change(run, "UPDATE leases SET state = 'ready' WHERE lease = 1"),
        "open lease(s) have rollouts that were consumed",
    ),
    "consumed at no step": (
        lambda run: change(run, "UPDATE leases SET step = NULL WHERE lease = 1"),
        "consumed at no step",
    ),
    "a skipped task": (
        lambda run: change(run, "UPDATE leases SET position = position + 1 WHERE lease >= 4"),
        "1 position(s) of the task stream were skipped",
    ),
    "a task leased under two numbers": (
        lambda run: change(run, "UPDATE leases SET position = 3 WHERE lease = 4"),
        "leased under two numbers",
    ),
    "trained on too late": (
        lambda run: change(run, "UPDATE leases SET version = 0, leased_version = 0 WHERE step = 3"),
        "2 versions late, more than rollout.max_lag=1",
    ),
    "older than its lease": (
        lambda run: change(run, "UPDATE leases SET leased_version = 2 WHERE lease = 1"),
        "an older policy than they were given out at (lease 1)",
    ),
    "a group trained on twice": (
        lambda run: write_rollouts(
            rollouts_path(run, 3), [make_group([1.0], lease=0)], step=3, version=2
        ),
        "1 group(s) lie in more than one step file",
    ),
    "a rollout twice in a file": (_twice_in_a_file, "lie more than once in one step file"),
    "a step without its file": (
        lambda run: rollouts_path(run, 2).unlink(), "step 2 has no file of rollouts",
    ),
    "a file of another step": (_other_step, "step-00002.parquet holds rows of another step"),
    "a torn step file": (
        lambda run: os.truncate(rollouts_path(run, 2), 100), "step-00002.parquet cannot be read",
    ),
    "a step file of something else": (
        lambda run: rollouts_path(run, 2).write_bytes(b"hello"), "step-00002.parquet cannot be",
    ),
    "a step that was not logged": (_drop_a_metrics_row, "lacks 1 of the steps 1 to 3 (first: 2)"),
    "a step logged twice": (
        lambda run: append_metrics(run, '{"step": 2, "time": 1, "loss": 0.1}\n'),
        "holds 1 step(s) more than once (first: 2)",
    ),
    "a damaged checkpoint": (
        lambda run: (run / WEIGHTS).write_bytes(b"weightz"), "is damaged (checksum differs)",
    ),
    "a checkpoint that lacks a file": (lambda run: (run / WEIGHTS).unlink(), "lacks policy/model"),
    "a checkpoint without its marker": (
        lambda run: (run / "checkpoints/step-00003/COMPLETE.json").unlink(), "is missing",
    ),
    "a checkpoint under another name": (
        lambda run: (run / "checkpoints/step-00003").rename(run / "checkpoints/step-00007"),
        "step-00007 says it is of step 3",
    ),
    "totals that are not the ledger's": (_fact, "facts/ledger.json says consumed = 16"),
    "something in flight after the last step": (
        lambda run: change(
            run, "INSERT INTO leases VALUES (6, 't6', 6, 1, 2, 'w', 'leased', NULL, NULL, 1)",
            "INSERT INTO rollouts VALUES (6, 0, NULL, NULL)",
        ),
        "1 rollout(s) are still in flight",
    ),
    "no ledger": (lambda run: (run / LEDGER).unlink(), "ledger.sqlite is missing"),
    "a ledger cut in half": (
        lambda run: os.truncate(run / LEDGER, (run / LEDGER).stat().st_size // 2),
        "ledger.sqlite",
    ),
    "a ledger that is no database": (
        lambda run: (run / LEDGER).write_bytes(b"not a database at all" * 50), "not a database",
    ),
    "an empty ledger": (lambda run: (run / LEDGER).write_bytes(b""), "schema version 0"),
    "a ledger of another version": (
        lambda run: change(run, "PRAGMA user_version = 9"), "schema version 9",
    ),
    "a ledger without a table": (
        lambda run: change(run, "DROP TABLE resumes"), "has no resumes",
    ),
    "no config": (lambda run: (run / "config.yaml").unlink(), "config.yaml cannot be read"),
    "a damaged config": (
        lambda run: (run / "config.yaml").write_text("{a: [1"), "config.yaml cannot be read",
    ),
    "a config that is no mapping": (
        lambda run: (run / "config.yaml").write_text("hello"), "config.yaml holds no settings",
    ),
    "a config that is no text": (
        lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe\x00"), "config.yaml",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_does_not_hold_is_a_sentence(run: Path, name: str) -> None:
    damage, said = DAMAGE[name]
    damage(run)
    found = audit(run)
    assert found["sound"] is False
    assert any(said in problem for problem in found["problems"]), found["problems"]
    assert all("\n" not in problem for problem in found["problems"])
