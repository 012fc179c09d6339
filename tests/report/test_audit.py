"""The audit finds what does not hold, names it, and finds nothing where all holds."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_ind

from rltrain.commands import audit as command
from rltrain.errors import UserError
from rltrain.report.audit import audit
from rltrain.report.audit_lengths import length_bias
from tests.report.ledgers import append_metrics, change, write_checkpoint, write_sound_run

WEIGHTS = "checkpoints/step-00003/policy/model.safetensors"
LEDGER = "ledger.sqlite"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_sound_run(tmp_path / "run")


def test_a_sound_run_is_sound_and_its_numbers_are_the_ledgers(run: Path) -> None:
    found = audit(run)
    assert found["problems"] == [] and found["sound"] is True
    assert found["state"] == "finished"
    assert found["issued"] == 24 and found["consumed"] == 15 and found["in_flight"] == 0
    assert found["dropped"] == {"detector:opt_out": 3, "fault:engine": 6}
    assert found["adds_up"] is True and found["skipped_positions"] == 0
    assert found["re_leased"] == {"leases": 1, "times": 2}
    assert found["resumes"] == [{"at": 1700000000.5, "step": 1, "rewound": 2, "pending": 1}]
    assert found["rollouts"] == {"files": 3, "rows": 18}
    assert found["largest_lag"] == 0
    assert found["checkpoints"] == [
        {"name": "step-00003", "step": 3, "whole": True, "wrong": None}
    ]


def test_a_run_that_stopped_between_ledger_and_metrics_is_sound(tmp_path: Path) -> None:
    run = write_sound_run(tmp_path / "run", steps=3, planned=9)
    change(
        run,
        "INSERT INTO leases VALUES (6, 't6', 6, 1, 2, 'w', 'settled', 3, 4, 1)",
        "INSERT INTO rollouts VALUES (6, 0, 5, 'consumed')",
        "INSERT INTO leases VALUES (7, 't7', 7, 1, 2, 'w', 'leased', NULL, NULL, 1)",
        "INSERT INTO rollouts VALUES (7, 0, NULL, NULL)",
    )
    append_metrics(run, '{"step": 4, "lo')
    found = audit(run)
    assert found["problems"] == []
    assert found["state"] == "unfinished" and found["in_flight"] == 1
    assert found["metrics"]["torn"] == 1
    (run / "heartbeats").mkdir()
    (run / "heartbeats" / "learner").touch()
    assert audit(run)["state"] == "running"


def test_many_missing_steps_do_not_fill_the_screen(tmp_path: Path) -> None:
    run = write_sound_run(tmp_path / "run", steps=40, planned=40)
    shutil.rmtree(run / "rollouts")
    found = audit(run)
    assert len(found["problems"]) == 21
    assert "20 more steps differ" in found["problems"][-1]


def test_quick_looks_for_files_without_reading_them(run: Path) -> None:
    (run / WEIGHTS).write_bytes(b"weightz")
    assert audit(run, hashed=False)["sound"] is True
    (run / WEIGHTS).unlink()
    assert audit(run, hashed=False)["sound"] is False


def test_a_ledger_in_use_is_read_with_its_newest_commits_and_not_written(run: Path) -> None:
    writer = sqlite3.connect(run / LEDGER, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("UPDATE leases SET attempts = 5 WHERE lease = 1")
    writer.execute("BEGIN IMMEDIATE")
    before = (run / LEDGER).read_bytes()
    assert audit(run)["re_leased"] == {"leases": 2, "times": 6}
    assert (run / LEDGER).read_bytes() == before
    writer.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only mount needs root")
def test_a_run_on_a_read_only_disk_after_a_crash_is_read_with_its_journal(run: Path) -> None:
    code = (
        "import os, sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA journal_mode=WAL')\n"
        "db.execute('UPDATE leases SET attempts = 5 WHERE lease = 1')\nos._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, run / LEDGER], check=False, timeout=60)
    assert (run / "ledger.sqlite-wal").stat().st_size > 0
    (run / "ledger.sqlite-shm").unlink()
    if subprocess.run(["mount", "--bind", run, run], check=False).returncode:
        pytest.skip("this machine allows no mounts")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", run], check=True)
        found = audit(run)
        assert found["re_leased"] == {"leases": 2, "times": 6}, found["problems"]
    finally:
        subprocess.run(["umount", "-l", run], check=True)


def test_the_command_prints_json_and_its_exit_code_says_whether_it_holds(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command.main([str(run)])
    assert json.loads(capsys.readouterr().out)["sound"] is True
    change(run, "DELETE FROM rollouts WHERE lease = 2 AND sample = 1")
    with pytest.raises(SystemExit) as ended:
        command.main([str(run)])
    assert ended.value.code == 3
    assert json.loads(capsys.readouterr().out)["adds_up"] is False
    for nothing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="is not a run directory"):
            command.main([str(nothing)])


def test_with_groups_of_one_the_interval_is_welchs() -> None:
    rng = np.random.default_rng(3)
    kept, lost = rng.integers(5, 40, 400), rng.integers(10, 60, 300)
    rows = [(n, "consumed", 1, int(v)) for n, v in enumerate(kept)]
    rows += [(1000 + n, "detector:x", 1, int(v)) for n, v in enumerate(lost)]
    found = length_bias(rows)["difference"]
    low, high = ttest_ind(lost, kept, equal_var=False).confidence_interval(0.95)
    assert found["tokens"] == pytest.approx(lost.mean() - kept.mean())
    assert found["ci95"] == pytest.approx([low, high], rel=0.01)


def test_siblings_that_are_alike_widen_the_interval() -> None:
    """Ten groups of ten copies say as much as ten rollouts, not as a hundred."""
    rng = np.random.default_rng(4)
    lengths = rng.integers(5, 50, 20)
    alone = [(n, "consumed" if n < 10 else "x", 1, int(v)) for n, v in enumerate(lengths)]
    tenfold = [(n, fate, 10 * count, 10 * tokens) for n, fate, count, tokens in alone]
    assert length_bias(tenfold)["difference"]["ci95"] == pytest.approx(
        length_bias(alone)["difference"]["ci95"]
    )


def test_siblings_of_the_same_groups_on_both_sides_cancel_what_groups_share() -> None:
    """By hand: in every group, the dropped rollout is exactly one token longer."""
    rows = [(n, fate, 1, 10 * n + (fate == "x")) for n in range(5) for fate in ("consumed", "x")]
    found = length_bias(rows)
    assert found["difference"]["tokens"] == pytest.approx(1.0)
    assert found["consumed"] == {"n": 5, "mean_tokens": 20.0}
    assert found["by_reason"] == {"x": {"n": 5, "mean_tokens": 21.0}}


def test_nothing_dropped_has_no_difference_and_one_group_no_interval() -> None:
    assert length_bias([(0, "consumed", 3, 30)])["difference"] is None
    assert length_bias([])["consumed"] == {"n": 0, "mean_tokens": None}
    one = length_bias([(0, "consumed", 3, 30), (1, "x", 1, 50)])["difference"]
    assert one == {"tokens": 40.0, "ci95": None}


def test_an_old_heartbeat_is_no_sign_of_life(tmp_path: Path) -> None:
    run = write_sound_run(tmp_path / "run", steps=2, planned=5)
    (run / "heartbeats").mkdir()
    beat = run / "heartbeats" / "learner"
    beat.touch()
    os.utime(beat, (time.time() - 60,) * 2)
    assert audit(run)["state"] == "unfinished"


def test_a_second_checkpoint_is_looked_at_too(run: Path) -> None:
    write_checkpoint(run / "checkpoints" / "step-00002", 2)
    assert [entry["step"] for entry in audit(run)["checkpoints"]] == [2, 3]
