"""Kappas and correlations against scikit-learn and SciPy; intervals over whole units."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, pearsonr
from sklearn.metrics import cohen_kappa_score

from rltrain.agreement import (
    cohen_kappa,
    interval,
    kappa,
    kendall_tau_b,
    pearson,
    resample,
    resampled_pearson,
    resampled_tau_b,
)

Grades = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40
)


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
@given(Grades)
@settings(max_examples=40, deadline=None)
def test_kappa_is_scikit_learns_with_every_weight(
    weights: Literal["linear", "quadratic"] | None, pairs: list[tuple[int, int]]
) -> None:
    # scikit-learn weighs ranks among the values that occur, as ours does.
    first, second = np.array(pairs, dtype=float).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = cohen_kappa_score(first.astype(int), second.astype(int), weights=weights)
    assert cohen_kappa(first, second, weights=weights)[0] == pytest.approx(theirs, nan_ok=True)


@given(Grades)
@settings(max_examples=40, deadline=None)
def test_correlations_are_scipys_where_neither_side_is_constant(
    pairs: list[tuple[int, int]],
) -> None:
    first, second = np.array(pairs, dtype=float).T
    if np.ptp(first) and np.ptp(second):
        assert kendall_tau_b(first, second) == pytest.approx(kendalltau(first, second).statistic)
        assert pearson(first, second) == pytest.approx(pearsonr(first, second).statistic)
    else:
        assert np.isnan(kendall_tau_b(first, second)) and np.isnan(pearson(first, second))


def test_items_that_one_did_not_rate_are_left_out() -> None:
    first = np.array([1.0, 0.0, 1.0, np.nan, 0.0])
    second = np.array([1.0, 0.0, 0.0, 1.0, np.nan])
    alone = cohen_kappa(first[:3], second[:3])[0]
    assert cohen_kappa(first, second)[0] == pytest.approx(alone) == pytest.approx(0.4)
    assert pearson(first, second) == pytest.approx(pearson(first[:3], second[:3]))


def test_kappa_worked_by_hand() -> None:
    # Equal on 85 of 100, half expected by chance: (0.85 - 0.5) / 0.5.
    assert kappa([40, 10, 5, 45]) == pytest.approx(0.7)
    assert np.isnan(kappa([9, 0, 0, 0]))


def test_units_are_drawn_whole() -> None:
    draws = resample(["a", "a", "b", "c", "c", "c"], seed=0, resamples=50)
    assert draws.shape == (50, 6)
    assert (draws[:, 0] == draws[:, 1]).all() and (draws[:, 3] == draws[:, 5]).all()
    assert (draws[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_counting_resamples_and_repeating_items_give_the_same_values() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 4, 60) / 3
    second = np.clip(first + rng.integers(-1, 2, 60) / 3, 0, 1)
    second[5] = np.nan
    draws = resample(range(60), seed=1, resamples=40)
    repeated = [np.repeat(np.arange(60), row) for row in draws.astype(int)]
    for fast, slow in (
        (cohen_kappa(first, second, draws=draws), lambda a, b: cohen_kappa(a, b)[0]),
        (resampled_tau_b(first, second, draws), kendall_tau_b),
        (resampled_pearson(first, second, draws), pearson),
    ):
        assert fast == pytest.approx([slow(first[items], second[items]) for items in repeated])
        low, high = interval(fast)
        assert low < slow(first, second) < high
    constant = np.ones(60)
    assert np.isnan(resampled_pearson(first, constant, draws)).all()
    assert np.isnan(resampled_tau_b(first, constant, draws)).all()
