"""The release gate with the embedded judge: measured through a real vLLM server, then refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.conftest import SMALL, Run

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("models"), pytest.mark.timeout(400)]

ASKED = (*SMALL, "rewards=judged", "rewards.judge.require.kappa=0.99", "name=gated")


def test_the_embedded_judge_is_measured_and_refused(rltrain: Run, workplace: Path) -> None:
    measured = rltrain("judge", "calibrate", *ASKED, "--probes", "2")
    assert measured.returncode == 1, measured.stderr[-2000:]
    assert "not released: kappa is" in measured.stderr
    assert "synthetic raters" in measured.stdout
    found = json.loads((workplace / "runs" / "gated.judge" / "calibration.json").read_text())
    assert found["measures"]["items"] + found["verdicts"]["faults"] == 40
    assert found["ground_truth"]["undecided"] == 0
    assert found["judge"]["members"][0]["files"]
    assert found["master_keys"]["through_gates"]["worst"] == 0.0
    refused = rltrain("train", *ASKED)
    assert refused.returncode == 2
    (sentence,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert "may not reward" in sentence and "rltrain judge calibrate" in sentence
    assert not (workplace / "runs" / "gated").exists(), "nothing was started"
