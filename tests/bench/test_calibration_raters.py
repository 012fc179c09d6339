"""Ceiling and alternative annotator test against numbers made another way."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, ttest_1samp, wilcoxon
from sklearn.metrics import cohen_kappa_score

from rltrain.agreement import resample
from rltrain.bench.calibration_raters import (
    alt_test,
    benjamini_yekutieli,
    ceiling,
    decide,
    disagreements,
    majority,
    noisy,
)

ERRORS = (0.07, 0.085, 0.1)


def made(count: int, judge_error: float, seed: int = 0) -> tuple[Any, Any]:
    """Ratings of three synthetic raters [N, 3], and a judge [N] with its own rate of errors."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(count) < 0.5).astype(float)
    return noisy(truth, ERRORS, seed), noisy(truth, (judge_error,), seed + 1)[:, 0]


def test_the_ceiling_is_the_mean_of_scikit_learns_kappas() -> None:
    scores, judge = made(400, 0.15)
    found = ceiling(scores, judge, resample(range(400), 0, 100))
    people = np.mean(
        [cohen_kappa_score(scores[:, a], scores[:, b]) for a, b in combinations(range(3), 2)]
    )
    ours = np.mean([cohen_kappa_score(judge, scores[:, a]) for a in range(3)])
    assert found["people"]["value"] == pytest.approx(people)
    assert found["judge"]["value"] == pytest.approx(ours)
    assert found["share"]["value"] == pytest.approx(ours / people)
    for part in ("people", "judge", "share", "people_left_out"):
        assert found[part]["low"] < found[part]["value"] < found[part]["high"]


def test_the_default_raters_agree_about_as_well_as_people_do() -> None:
    scores, judge = made(20_000, 0.1)
    assert ceiling(scores, judge, resample(range(20_000), 0, 2))["people"]["value"] == (
        pytest.approx(0.69, abs=0.01)
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=80, deadline=None)
def test_benjamini_yekutieli_rejects_what_scipy_adjusts_to_at_most_the_rate(
    values: list[float],
) -> None:
    adjusted = false_discovery_control(values, method="by")
    if (np.abs(adjusted - 0.05) > 1e-9).all():
        assert benjamini_yekutieli(values, 0.05) == (adjusted <= 0.05).tolist()
    assert benjamini_yekutieli([], 0.05) == []


def by_the_paper(scores: Any, judge: Any, epsilon: float) -> tuple[list[float], list[float]]:
    """p-values and advantage probabilities, item by item as the definition reads."""
    p_values, advantages = [], []
    for rater in range(scores.shape[1]):
        won, lost = [], []
        for row, said in zip(scores, judge, strict=True):
            others = [value for n, value in enumerate(row) if n != rater and np.isfinite(value)]
            if not np.isfinite(row[rater]) or not others:
                continue
            machine = np.mean([said == other for other in others])
            person = np.mean([row[rater] == other for other in others])
            won.append(int(machine >= person))
            lost.append(int(person >= machine))
        difference = np.array(lost) - np.array(won)
        p_values.append(ttest_1samp(difference, epsilon, alternative="less").pvalue)
        advantages.append(float(np.mean(won)))
    return p_values, advantages


@pytest.mark.parametrize("judge_error", [0.05, 0.15, 0.3])
def test_the_alt_test_is_what_its_definition_gives(judge_error: float) -> None:
    scores, judge = made(120, judge_error, seed=3)
    scores[::7, 1] = np.nan
    found = alt_test(scores, judge, epsilon=0.15, nominal=True)
    p_values, advantages = by_the_paper(scores, judge, 0.15)
    assert [one["p"] for one in found["raters"].values()] == pytest.approx(p_values)
    assert found["rho"] == pytest.approx(np.mean(advantages))
    assert found["omega"] == pytest.approx(np.mean(benjamini_yekutieli(p_values, 0.05)))


def test_a_judge_like_the_raters_passes_and_a_coin_does_not() -> None:
    good = alt_test(*made(300, 0.05), epsilon=0.2, nominal=True)
    coin = alt_test(*made(300, 0.5), epsilon=0.2, nominal=True)
    assert good["passed"] and good["omega"] == 1.0
    assert not coin["passed"] and coin["omega"] == 0.0 and coin["rho"] < good["rho"]


def test_raters_of_few_items_are_left_out_or_tested_by_ranks() -> None:
    scores, judge = made(60, 0.1)
    scores[25:, 2] = np.nan
    assert set(alt_test(scores, judge, epsilon=0.2, nominal=True)["raters"]) == {0, 1}
    few = alt_test(scores, judge, epsilon=0.2, nominal=True, fewest_items=10)["raters"][2]
    others = scores[:25, :2]
    machine = (others == judge[:25, None]).mean(axis=1)
    person = (others == scores[:25, 2:]).mean(axis=1)
    difference = (person >= machine).astype(float) - (machine >= person)
    assert few["items"] == 25
    assert few["p"] == pytest.approx(wilcoxon(difference - 0.2, alternative="less").pvalue)
    nobody = alt_test(scores[:20], judge[:20], epsilon=0.2, nominal=True)
    assert np.isnan(nobody["omega"]) and not nobody["passed"]


def test_graded_ratings_are_compared_by_distance() -> None:
    scores = np.tile([[0.2, 0.4, 0.6]], (40, 1))
    near, far = np.full(40, 0.4), np.full(40, 1.0)
    assert alt_test(scores, near, epsilon=0.2, nominal=False)["omega"] == 1.0
    assert alt_test(scores, far, epsilon=0.2, nominal=False)["omega"] == 0.0


def test_a_tie_has_no_label_until_somebody_settles_it() -> None:
    decisions = decide(np.array([[1, 0, np.nan], [1, 1, 0], [np.nan] * 3]), 0.5)
    assert np.array_equal(majority(decisions), [np.nan, 1.0, np.nan], equal_nan=True)
    first, second = disagreements(["a", "b", "c"], decisions, {"a": 0.0})
    assert (first["item"], first["tie"], first["settled"]) == ("a", True, 0.0)
    assert (second["item"], second["yes"], second["no"], second["tie"]) == ("b", 2, 1, False)
