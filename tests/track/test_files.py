"""What is on disk after a crash: whole files, whole lines, and a count of what was torn."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from rltrain.track import (
    FanOut,
    JsonlTracker,
    append_event,
    read_fact,
    read_jsonl,
    read_metrics,
    read_rollouts,
    rollouts_path,
    write_fact,
    write_rollouts,
)
from rltrain.track.files import write_text
from rltrain.track.jsonl import Tail
from rltrain.track.redact import redact, redact_text
from rltrain.types import Flag, Group
from tests.report.synthetic import HOSTILE, make_task, rollout


def test_rows_come_back_as_they_were_logged(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "m.jsonl", fsync=True)
    tracker.log(1, {"loss": 0.5})
    tracker.log(2, {"loss": float("nan"), "ratio": float("-inf")})
    first, second = read_metrics(tmp_path / "m.jsonl").rows  # while it is still open
    tracker.close()
    assert (first["step"], first["loss"]) == (1, 0.5)
    assert math.isnan(second["loss"])
    assert second["ratio"] == float("-inf")
    for line in (tmp_path / "m.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_torn_line_is_skipped_counted_and_cannot_swallow_the_next_row(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1, "a": 1}\n{"step": 2, "a": "\xe2')
    JsonlTracker(path).log(3, {"a": 3})
    metrics = read_metrics(path)
    assert [row["step"] for row in metrics.rows] == [1, 3]
    assert metrics.torn == 1


def test_a_step_that_was_done_again_counts_once_and_is_mentioned(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "m.jsonl")
    for step, value in ((1, 1.0), (2, 2.0), (2, 2.5)):
        tracker.log(step, {"a": value})
    metrics = read_metrics(tmp_path / "m.jsonl")
    assert [row["a"] for row in metrics.rows] == [1.0, 2.5]
    assert metrics.superseded == 1


def test_a_reserved_metric_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reserved"):
        JsonlTracker(tmp_path / "m.jsonl").log(1, {"time": 0.0})


def test_rows_survive_the_death_of_the_process_that_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    code = (
        "import os, pathlib, sys; from rltrain.track.jsonl import JsonlTracker\n"
        "JsonlTracker(pathlib.Path(sys.argv[1])).log(1, {'a': 1.0})\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)})"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert [row["a"] for row in read_metrics(path).rows] == [1.0]


def test_a_tail_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    tail = Tail(path)
    assert tail.poll() == []
    path.write_bytes(b'{"step": 1}\n{"st')
    assert tail.poll() == [{"step": 1.0}]
    with path.open("ab") as handle:
        handle.write(b'ep": 2}\n')
    assert tail.poll() == [{"step": 2.0}]
    assert tail.poll() == []


def test_facts_are_whole_and_unknown_parts_are_refused(tmp_path: Path) -> None:
    assert read_fact(tmp_path, "run") is None
    write_fact(tmp_path, "judge", {"kappa": float("nan"), "n": 3, "name": "é"})
    fact = read_fact(tmp_path, "judge")
    assert fact is not None
    assert math.isnan(fact["kappa"])
    assert fact["n"] == 3
    assert [path.name for path in (tmp_path / "facts").iterdir()] == ["judge.json"]
    with pytest.raises(ValueError, match="no such fact"):
        write_fact(tmp_path, "jugde", {})
    (tmp_path / "facts" / "run.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_fact(tmp_path, "run")


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "new \ud800")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_events_of_several_processes_share_a_file(tmp_path: Path) -> None:
    for process in ("learner", "worker-0"):
        append_event(tmp_path, process=process, kind="fault", text="line\nbreak \ud800")
    rows, torn = read_jsonl(tmp_path / "events.jsonl")
    assert [row["process"] for row in rows] == ["learner", "worker-0"]
    assert (rows[0]["text"], torn) == ("line\nbreak ?", 0)


def test_rollouts_come_back_with_gates_flags_and_hostile_text(tmp_path: Path) -> None:
    flag = Flag(detector="d", evidence=HOSTILE, action="keep")
    task = make_task(3)
    members = (
        rollout(task, 0, flags=(flag,), answer=HOSTILE + "\ud800", version=4),
        rollout(task, 1, stopped="syntax", truth=None, version=6),
    )
    path = rollouts_path(tmp_path, 7)
    group = Group(lease=9, task=task, members=members)
    assert write_rollouts(path, [group], step=7, version=6) == 2
    first, second = read_rollouts(path)
    assert path.name == "step-00007.parquet"
    assert first["answer"] == HOSTILE + "?"
    assert first["flags"] == [{"detector": "d", "evidence": HOSTILE, "action": "keep"}]
    assert first["request"] == task.prompt[-1].content
    assert first["gold"] == task.data["gold"]
    assert (first["version"], second["version"]) == (4, 6)
    assert first["lag"] == second["lag"] == 2
    assert (second["truth"], second["canonical"]) == (None, None)
    assert [gate["passed"] for gate in second["gates"]] == [True, False]
    assert second["gates"][1]["reason"].startswith("syntax:")
    assert first["mean_logprob"] == -0.5


def test_an_empty_step_is_a_file_with_the_same_columns(tmp_path: Path) -> None:
    assert write_rollouts(tmp_path / "a.parquet", [], step=1, version=0) == 0
    assert read_rollouts(tmp_path / "a.parquet") == []


class Broken:
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        raise OSError("disk full")

    def close(self) -> None:
        pass


def test_a_broken_sink_is_reported_once_and_the_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    sinks = FanOut([Broken(), JsonlTracker(tmp_path / "m.jsonl")], warn=said.append)
    for step in (1, 2, 3):
        sinks.log(step, {"a": 1.0})
    sinks.close()
    assert len(read_metrics(tmp_path / "m.jsonl").rows) == 3
    assert said == ["Broken failed at step 1: OSError: disk full",
                    "Broken lost 3 record(s) of this run"]


def test_secrets_are_hidden_and_token_counts_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "abcdefgh12345")
    config = {
        "api_key": "x", "api_key_env": "SOME_API_KEY", "max_new_tokens": 64,
        "nested": [{"password": "y", "url": "https://me:pw@host/v1"}], "note": "has abcdefgh12345",
    }
    assert redact(config) == {
        "api_key": "(hidden)", "api_key_env": "SOME_API_KEY", "max_new_tokens": 64,
        "nested": [{"password": "(hidden)", "url": "https://(hidden)@host/v1"}],
        "note": "has (hidden)",
    }
    assert redact_text("fine") == "fine"
