"""The gate by hand: what is measured, when it counts, and what it then does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rltrain.algo.corrections import Correction
from rltrain.algo.mismatch import described, gaps, joined, quantile
from rltrain.algo.mismatch_gate import Thresholds
from rltrain.config.algo import AlgoConfig
from rltrain.config.precision import MismatchConfig
from rltrain.errors import MismatchError, UserError
from rltrain.train.mismatch_gate import MismatchGate
from rltrain.types import StepStats
from tests.algo.scored_tokens import scored_tokens

K3 = "mismatch/k3"


def test_what_is_no_mean_by_hand() -> None:
    """Two answers, of three tokens and of one; d = .1 .2 -.6 and .5."""
    parts = [
        gaps(torch.tensor([0.1, 0.2, -0.6]), torch.zeros(3), torch.zeros(3, dtype=torch.long), 1),
        gaps(torch.tensor([0.5]), torch.zeros(1), torch.zeros(1, dtype=torch.long), 1),
    ]
    found = {k.removeprefix("mismatch/"): float(v) for k, v in described(joined(parts)).items()}
    assert found == pytest.approx(
        {
            "p50_abs_logprob": 0.2, "p99_abs_logprob": 0.6, "max_abs_logprob": 0.6,
            "max_ratio": math.exp(0.6), "sequence_kl": -(-0.3 + 0.5) / 2,
            "slope_per_1k": 1000 * (3 * -0.3 + 1 * 0.5) / (9 + 1),
            "first_token": (0.1 + 0.5) / 2, "later_tokens": (0.2 + 0.6) / 2,
        }
    )  # fmt: skip


def test_answers_of_one_token_have_no_later_ones_and_no_answers_have_nothing() -> None:
    one = gaps(torch.tensor([0.5, 0.1]), torch.zeros(2), torch.arange(2), 2)
    assert "mismatch/later_tokens" not in described(one)
    empty = torch.zeros(0)
    assert described(gaps(empty, empty, empty.long(), 0)) == {}


def test_quantiles_are_values_that_occurred_and_nan_is_the_largest() -> None:
    values = torch.tensor([3.0, 1.0, 2.0, 4.0])
    assert [float(quantile(values, q)) for q in (0.0, 0.25, 0.5, 0.51, 1.0)] == [1, 1, 2, 3, 4]
    assert math.isnan(float(quantile(torch.tensor([1.0, math.nan]), 0.99)))


def test_patience_is_counted_in_a_row_and_a_step_without_the_metric_is_no_step() -> None:
    config = MismatchConfig.model_validate(
        {"warn": {"k3": 0.1}, "stop": {"k3": None, "k1": 0.5}, "patience": 2}
    )
    thresholds = Thresholds(config)
    rows: list[dict[str, float]] = [
        {K3: 0.2}, {K3: 0.1}, {K3: 0.2}, {}, {K3: math.nan}, {K3: 9.0},
        {"mismatch/k1": -0.6}, {"mismatch/k1": 0.6},
    ]  # fmt: skip
    seen = [[reached.level for reached in thresholds.observe(row)] for row in rows]
    assert seen == [[], [], [], [], ["warn"], [], [], ["stop"]]


class Learner:
    def __init__(self) -> None:
        self.corrections: list[Correction] = []

    def correct(self, correction: Correction) -> None:
        self.corrections.append(correction)


def gate_of(algo: dict[str, Any], **config: Any) -> tuple[MismatchGate, Learner, list[str]]:
    learner, said = Learner(), list[str]()
    made = MismatchGate(
        MismatchConfig.model_validate({"patience": 1, **config}),
        AlgoConfig.model_validate(algo), learner, said.append,
    )  # fmt: skip
    return made, learner, said


def stats(**metrics: float) -> StepStats:
    named = {f"mismatch/{name}": value for name, value in metrics.items()}
    return StepStats(loss=0, grad_norm=1, lr=1, tokens=1, wall_s=1, metrics=named)


def test_it_warns_once_corrects_once_and_stops() -> None:
    gate, learner, said = gate_of(
        {"correction": "none"}, warn={"k3": 0.1}, correct={"k3": 0.2}, stop={"k3": 0.3}
    )
    assert [gate(step, stats(k3=0.15)) for step in (1, 2)] == [None, None]
    assert said == ["step 1: mismatch/k3 is 0.15, for 1 step(s) in a row beyond 0.1 "
                    "(mismatch.warn)"]  # fmt: skip
    assert gate(3, stats(k3=0.25)) is None
    assert "step 3" in said[1] and said[1].endswith("token_tis is on from the next step")
    scored = scored_tokens([1.0, 1.0], [1.0, 1.0], rho=[8.0, 0.5])
    assert learner.corrections[0](scored).tolist() == pytest.approx([2.0, 0.5])  # TIS, capped at 2
    stop = gate(4, stats(k3=0.35))
    assert isinstance(stop, MismatchError)
    assert "mismatch/k3 is 0.35" in str(stop) and said[2] == str(stop)
    assert len(learner.corrections) == 1
    assert isinstance(gate(5, stats(k3=0.35)), MismatchError)  # a continued run is judged again


def test_a_correction_that_is_on_already_is_left_as_it_is() -> None:
    for algo in ("token_tis", "sequence_mis", ["veto", "icepop"]):
        gate, learner, said = gate_of({"correction": algo}, correct={"k3": 0.2})
        gate(1, stats(k3=0.3))
        assert not learner.corrections
        assert said[-1].endswith("a correction is on already")


def test_corrections_that_only_decide_stay_beside_the_new_one() -> None:
    gate, learner, _ = gate_of(
        {"correction": "veto", "correction_args": {"floor": 0.4}}, correct={"k3": 0.2}
    )
    gate(1, stats(k3=0.3))
    scored = scored_tokens([1.0, 1.0], [1.0, 1.0], rho=[8.0, 0.5])
    assert learner.corrections[0](scored).tolist() == pytest.approx([2.0, 0.5])
    low = scored_tokens([1.0, 1.0], [1.0, 1.0], rho=[0.3, 0.5])
    assert learner.corrections[0](low).tolist() == [0, 0]  # vetoed


def test_a_resumed_gate_goes_on_counting_and_correcting() -> None:
    settings: Any = {"correct": {"k3": 0.2}, "stop": {"k3": 0.3}, "patience": 2}
    gate, _, _ = gate_of({"correction": "none"}, **settings)
    gate(1, stats(k3=0.25))
    gate(2, stats(k3=0.35))
    second, learner, _ = gate_of({"correction": "none"}, **settings)
    second.load_state_dict(gate.state_dict())
    assert len(learner.corrections) == 1
    assert isinstance(second(3, stats(k3=0.35)), MismatchError)


def test_a_correction_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UserError, match=r"'nope'"):
        gate_of({}, correction="nope")
