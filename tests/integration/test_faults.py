"""A real run whose processes are killed and stopped one after the other: it ends as if nothing had
happened, and says what did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import SMALL, Run
from tests.integration.test_bad_input import children_of_runs

pytestmark = [
    pytest.mark.e2e, pytest.mark.slow, pytest.mark.usefixtures("models"), pytest.mark.timeout(600),
]  # fmt: skip

STEPS = 24
SIGNS = {
    "engine": "--served-model-name policy",
    "judge": "--served-model-name judge",
    "learner": "launch.child learner",
    "worker": "launch.child worker",
}
HARMS = (
    ("engine", signal.SIGKILL), ("judge", signal.SIGKILL), ("worker", signal.SIGKILL),
    ("learner", signal.SIGKILL), ("worker", signal.SIGSTOP),
)  # fmt: skip
# Steps between two harms: more than can be waiting ready-made, so that what was harmed has been
# asked again (an outage that nobody met is not told) and works.
APART = 4
ARGS = (
    "rewards=judged", f"max_steps={STEPS}", "train.checkpoint_every=3", "supervise.stall_s=6",
    "rollout.max_lag=1",
)  # fmt: skip


def child_of(parent: int, sign: str) -> int:
    """The newest child of the front end whose command line holds `sign`."""
    found = []
    for pid in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, pid.read_text().split()):
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if sign in line:
                found.append(child)
    return max(found)


def steps(run: Path) -> list[int]:
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def events(run: Path) -> list[dict[str, Any]]:
    file = run / "events.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def restarts(run: Path) -> Counter[str]:
    return Counter(event["process"] for event in events(run) if event["kind"] == "restart")


def until(process: subprocess.Popen[str], condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended early"
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def harmed(command: list[str], workplace: Path, models: None) -> Path:
    """The directory of a run that survived every harm."""
    run = workplace / "runs" / "harmed"
    process = subprocess.Popen(
        [*command, "train", *SMALL, *ARGS, "name=harmed"],
        cwd=workplace, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        until(process, lambda: steps(run), 180)
        for victim, number in HARMS:
            known, seen = restarts(run), len(steps(run))
            os.kill(child_of(process.pid, SIGNS[victim]), number)
            until(process, lambda: restarts(run) != known, 60)  # noqa: B023
            until(process, lambda: len(steps(run)) >= seen + APART, 120)  # noqa: B023
        assert process.wait(180) == 0
    finally:
        process.kill()
        output = process.communicate()[0]
        print(output[-4000:])
    return run


def test_every_step_is_there_once(harmed: Path) -> None:
    assert steps(harmed) == list(range(1, STEPS + 1))
    assert children_of_runs(harmed.parents[1]) == []


def test_no_rollout_was_lost_to_a_fault_and_the_ledger_adds_up(harmed: Path) -> None:
    ledger = json.loads((harmed / "summary.json").read_text())["ledger"]
    assert ledger["issued"] == ledger["consumed"] + sum(ledger["dropped"].values())
    assert ledger["in_flight"] == 0
    assert not [reason for reason in ledger["dropped"] if reason.startswith("fault")]
    assert ledger["consumed"] == STEPS * 4 * 4


def test_every_restart_is_told_with_its_cause(harmed: Path) -> None:
    assert restarts(harmed) == {"engine": 1, "worker-0": 2, "learner": 1, "judge": 1}
    texts = {event["process"]: event["text"] for event in events(harmed)
             if event["kind"] == "restart"}  # fmt: skip
    for name in ("engine", "learner", "judge"):
        assert texts[name].startswith("was killed by SIGKILL; restarted (1 of 5) after 0.5 s")
    assert "no sign of life" in texts["worker-0"] and "(2 of 5)" in texts["worker-0"]


def test_the_gap_of_the_engine_has_a_beginning_and_an_end(harmed: Path) -> None:
    for what in ("engine http", "judge http"):
        kinds = [event["kind"] for event in events(harmed) if event["text"].startswith(what)]
        # A worker that is killed in an outage cannot tell its end; whoever lives on does.
        assert "outage" in kinds and kinds[-1] == "outage_over", what


def test_a_complete_run_says_so_and_does_nothing(rltrain: Run, harmed: Path) -> None:
    before = (harmed / "metrics.jsonl").read_bytes()
    done = rltrain("train", *SMALL, *ARGS, "name=harmed", "resume=auto", timeout=60)
    assert done.returncode == 0 and f"is complete: all {STEPS} steps are done" in done.stderr
    assert (harmed / "metrics.jsonl").read_bytes() == before
