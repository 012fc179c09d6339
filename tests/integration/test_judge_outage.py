"""An external judge that is gone for a while in the middle of a run: nothing is scored meanwhile,
nothing is lost, and the run says so. RLTRAIN_TEST_OUTAGE_S makes it as long as one likes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.integration.conftest import SMALL
from tests.integration.test_faults import events, steps, until
from tests.rewards.judge_server import free_port, serving

pytestmark = [
    pytest.mark.e2e, pytest.mark.slow, pytest.mark.usefixtures("models"), pytest.mark.timeout(600),
]  # fmt: skip

DOWN_S = float(os.environ.get("RLTRAIN_TEST_OUTAGE_S", "8"))
STEPS = 12


@pytest.fixture(scope="module")
def outage(command: list[str], workplace: Path, models: None) -> tuple[Path, float, float]:
    """The run's directory, and when the judge was gone and came back (unix seconds)."""
    run, port = workplace / "runs" / "outage", free_port()
    args = [
        *SMALL, "rewards=judged", f"rewards.judge.endpoint=http://127.0.0.1:{port}/v1",
        "rewards.judge.model=any", f"max_steps={STEPS}", "name=outage",
    ]  # fmt: skip
    process = subprocess.Popen(
        [*command, "train", *args],
        cwd=workplace, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        with serving(port):
            until(process, lambda: len(steps(run)) >= 2, 180)
        gone = time.time()
        time.sleep(DOWN_S)
        back = time.time()
        with serving(port):
            assert process.wait(240) == 0
    finally:
        process.terminate()
        print(process.communicate()[0][-4000:])
    return run, gone, back


def rollouts(run: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted((run / "rollouts").glob("step-*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def test_the_run_goes_on_and_loses_nothing(outage: tuple[Path, float, float]) -> None:
    run, _, _ = outage
    ledger = json.loads((run / "summary.json").read_text())["ledger"]
    assert steps(run) == list(range(1, STEPS + 1))
    assert ledger["consumed"] == ledger["issued"] == STEPS * 16
    assert ledger["dropped"] == {}


def test_no_rollout_is_rewarded_without_the_judge_s_word(
    outage: tuple[Path, float, float],
) -> None:
    """This judge says yes to all: whoever got past the gates before it must have earned 1."""
    verdicts = [
        (row["reward"], {gate["gate"]: gate["passed"] for gate in row["gates"]})
        for row in rollouts(outage[0])
    ]
    reached = [(reward, gates) for reward, gates in verdicts if gates.get("screen")]
    assert len(verdicts) == STEPS * 16 and reached
    assert all(gates.get("judge") is True and reward == 1.0 for reward, gates in reached)


def test_the_gap_is_told_and_seen(outage: tuple[Path, float, float]) -> None:
    run, gone, back = outage
    told = [(e["kind"], e["time"]) for e in events(run) if e["kind"].startswith("outage")]
    assert [kind for kind, _ in told] == ["outage", "outage_over"]
    assert gone < told[0][1] < back < told[1][1]
    times = [
        json.loads(line)["time"] for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    longest = max(after - before for before, after in itertools.pairwise(times))
    assert longest >= DOWN_S - 2
    assert "cannot be reached" in (run / "report.html").read_text()
