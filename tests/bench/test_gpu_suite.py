"""The GPU suite on a machine without one: every part runs at toy size, and nothing official is
written."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rltrain.bench import gpu_suite
from rltrain.bench.gpu_timing import Stage

ROOT = Path(__file__).resolve().parents[2]


def test_a_dry_run_runs_every_part_and_says_that_its_numbers_mean_nothing(tmp_path: Path) -> None:
    assert gpu_suite.main(tmp_path, [], dry_run=True, device="cpu") == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found["parts"]) == list(gpu_suite.PARTS)
    assert [name for name, part in found["parts"].items() if not part["rows"]] == []
    heads = {row["entrant"]: row for row in found["parts"]["heads"]["rows"]}
    assert heads["rltrain, torch chunks"]["logp error"] < 1e-5
    assert found["parts"]["tests"]["rows"][0]["passed"] == 1
    assert all("failed" not in row for row in found["parts"]["learner"]["rows"])
    against = {row["learner"]: row["mean d"] for row in found["parts"]["mismatch"]["rows"]}
    assert 0 < against["fp16"] < against["bf16"]
    assert "No number here means anything" in (tmp_path / "gpu.md").read_text()


def test_the_script_says_what_it_takes() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/gpu_suite.py", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "--dry-run" in done.stdout


def test_a_dry_run_refuses_the_official_folder() -> None:
    assert gpu_suite.main(gpu_suite.OFFICIAL, [], dry_run=True) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_measures_nothing(tmp_path: Path) -> None:
    assert gpu_suite.main(tmp_path, [], dry_run=False) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_fails_or_takes_too_long_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(stage: Stage) -> dict[str, object]:
        raise RuntimeError("no such instruction")

    def endless(stage: Stage) -> dict[str, object]:
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(gpu_suite, "tests", broken)
    monkeypatch.setattr(gpu_suite, "endless", endless, raising=False)
    monkeypatch.setitem(gpu_suite.PARTS, "endless", ("gpu_suite:endless", "Endless", 0.25))
    failures = gpu_suite.main(
        tmp_path, ["tests", "endless", "epilogue"], dry_run=True, device="cpu"
    )
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert failures == 2
    assert found["tests"]["failed_as"] == "RuntimeError: no such instruction"
    assert found["endless"]["failed_as"] == "OutOfTime: no time left after 1 s"
    assert found["epilogue"]["rows"]
