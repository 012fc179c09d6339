"""The chaos suite in small: random harm to one asynchronous run, with everything accounted for.
`python scripts/chaos.py` is the long version; its result is docs/benchmarks/chaos.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rltrain.bench.chaos import Plan, main

pytestmark = [
    pytest.mark.e2e, pytest.mark.slow, pytest.mark.usefixtures("models"), pytest.mark.timeout(600),
]  # fmt: skip

HARMS, STEPS = 5, 70


def test_random_harm_costs_no_rollout_and_repeats_none(workplace: Path, tmp_path: Path) -> None:
    plan = Plan(runs=1, harms=HARMS, steps=STEPS, seed=4, pause_s=(0.5, 4.0), timeout_s=400)
    main(plan, ["rollout.max_lag=1"], workplace, tmp_path)  # raises if anything was lost
    told = json.loads((tmp_path / "chaos.json").read_text())
    assert sum(told["harms"].values()) == HARMS
    assert told["lost"] == 0 and told["problems"] == []
    assert told["consumed"] == told["issued"] == STEPS * 16
