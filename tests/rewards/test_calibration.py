"""Agreement with executed truth: scikit-learn's kappa, an honest interval, faults kept apart."""

from __future__ import annotations

import asyncio
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (  # type: ignore[import-untyped,unused-ignore]
    cohen_kappa_score,
    confusion_matrix,
)

from rltrain.errors import JudgeFault, UserError
from rltrain.rewards import agreement, calibrate
from rltrain.types import Task, Verdict
from tests.rewards.reward_fakes import make_task

Pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(Pairs)
@settings(max_examples=60, deadline=None)
def test_kappa_and_counts_equal_scikit_learns(pairs: list[tuple[bool, bool]]) -> None:
    labels, said = [a for a, _ in pairs], [b for _, b in pairs]
    result = agreement(labels, said, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = cohen_kappa_score(labels, said, labels=[False, True])
        (tn, fp), (fn, tp) = confusion_matrix(labels, said, labels=[False, True])
    assert result["kappa"] == pytest.approx(expected, abs=1e-12, nan_ok=True)
    counted = [
        result[f"{kind}_{side}"]
        for kind, side in (
            ("true", "negative"), ("false", "positive"), ("false", "negative"),
            ("true", "positive"),
        )
    ]  # fmt: skip
    assert counted == [tn, fp, fn, tp] and result["n"] == len(pairs)
    assert result["accuracy"] == pytest.approx((tn + tp) / len(pairs))


def test_agreement_worked_by_hand() -> None:
    # 40 right accepted, 10 right rejected, 5 wrong accepted, 45 wrong rejected.
    labels = [True] * 50 + [False] * 50
    said = [True] * 40 + [False] * 10 + [True] * 5 + [False] * 45
    result = agreement(labels, said, seed=1)
    assert result["kappa"] == pytest.approx((0.85 - 0.5) / 0.5)
    assert result["false_positive_rate"] == pytest.approx(0.1)
    assert result["false_negative_rate"] == pytest.approx(0.2)
    assert result["kappa_low"] < 0.7 < result["kappa_high"]


def test_the_interval_covers_the_known_kappa_about_95_times_in_100() -> None:
    # Symmetric 15 % errors on balanced labels: kappa = 1 - 2 * 0.15 = 0.7.
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(150):
        labels = rng.random(200) < 0.5
        said = labels ^ (rng.random(200) < 0.15)
        result = agreement(labels.tolist(), said.tolist(), seed=seed)
        covered += result["kappa_low"] <= 0.7 <= result["kappa_high"]
    assert 134 <= covered <= 150


def test_the_interval_is_reproducible_from_its_seed() -> None:
    labels, said = [True, False] * 20, [True, True, False, False] * 10
    assert agreement(labels, said, 3) == agreement(labels, said, 3)
    assert agreement(labels, said, 3)["kappa_low"] != agreement(labels, said, 4)["kappa_low"]


def test_what_is_undefined_is_nan_and_not_a_flattering_number() -> None:
    result = agreement([True] * 5, [True] * 5, seed=0)
    assert math.isnan(result["kappa"]) and math.isnan(result["kappa_low"])
    assert math.isnan(result["false_positive_rate"]) and result["accuracy"] == 1.0


def test_a_judge_that_accepts_everything_has_kappa_zero() -> None:
    result = agreement([True, False] * 10, [True] * 20, seed=0)
    assert result["kappa"] == 0.0 and result["false_positive_rate"] == 1.0


def test_unequal_or_empty_sequences_are_refused() -> None:
    for labels, said in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="equally long"):
            agreement(labels, said, seed=0)


class ScriptedJudge:
    """Accepts answers that begin with `y`, faults on `f`, stops the run on `u`."""

    version = "1"

    async def __call__(self, task: Task, answer: str) -> Verdict:
        await asyncio.sleep(0)
        if answer.startswith("f"):
            raise JudgeFault("no verdict")
        if answer.startswith("u"):
            raise UserError("bad key")
        yes = answer.startswith("y")
        return Verdict(gate="judge", passed=yes, score=float(yes))


def test_calibrate_leaves_faulted_pairs_out_of_every_rate_and_reports_them() -> None:
    task = make_task()
    labelled = [(task, "y1", True), (task, "n1", False), (task, "y2", False), (task, "n2", True)]
    faulted = [(task, f"f{i}", True) for i in range(3)]
    result = asyncio.run(calibrate(ScriptedJudge(), [*faulted, *labelled]))
    assert result["faults"] == 3 and result["n"] == 4 and result["kappa"] == 0.0
    without = asyncio.run(calibrate(ScriptedJudge(), labelled))
    assert {**result, "faults": 0.0} == without


def test_calibrate_without_any_verdict_is_a_judge_fault() -> None:
    with pytest.raises(JudgeFault, match="any of 1"):
        asyncio.run(calibrate(ScriptedJudge(), [(make_task(), "f", True)]))
    with pytest.raises(ValueError, match="at least one"):
        asyncio.run(calibrate(ScriptedJudge(), []))


def test_calibrate_stops_on_an_error_that_the_user_must_put_right() -> None:
    with pytest.raises(UserError):
        asyncio.run(calibrate(ScriptedJudge(), [(make_task(), a, True) for a in ("y", "u", "n")]))
