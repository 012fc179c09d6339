"""Intervals against numbers worked by hand and against another implementation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from rltrain.agreement import kappa
from rltrain.report.stats import kappa_interval, paired_bootstrap, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 40), (1, 7), (300, 600), (599, 600), (40, 40)])
def test_the_wilson_interval_is_the_one_that_scipy_gives(k: int, n: int) -> None:
    theirs = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_wilson_interval_is_exact_at_its_ends_and_knows_nothing_of_nothing() -> None:
    assert wilson(0, 40)[0] == 0.0
    assert wilson(40, 40)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="0 <= k <= n"):
        wilson(5, 4)


def test_the_paired_bootstrap_has_the_mean_difference_within_an_interval_around_it() -> None:
    before, after = [0, 0, 0, 1] * 50, [1, 1, 0, 0] * 50
    mean, (low, high) = paired_bootstrap(before, after, seed=1)
    assert mean == 0.25
    # Differences are 1, 1, 0, -1: standard deviation 0.829 over 200 tasks, 1.96 errors = 0.115.
    assert (low, high) == pytest.approx((0.135, 0.365), abs=0.015)
    assert paired_bootstrap(before, after, seed=1) == (mean, (low, high))


def test_the_paired_bootstrap_is_certain_where_every_task_changed_alike() -> None:
    assert paired_bootstrap([0.0] * 9, [1.0] * 9, seed=0) == (1.0, (1.0, 1.0))
    with pytest.raises(ValueError, match="no task"):
        paired_bootstrap([], [], seed=0)


def test_kappa_is_the_one_that_scikit_learn_gives() -> None:
    table = [40, 9, 5, 46]
    first = [1] * 49 + [0] * 51
    second = [1] * 40 + [0] * 9 + [1] * 5 + [0] * 46
    assert kappa(table) == pytest.approx(cohen_kappa_score(first, second))
    assert np.isnan(kappa([10, 0, 0, 0]))


def test_siblings_that_agree_with_each_other_widen_the_interval_of_kappa() -> None:
    alone = np.array([[1, 0, 0, 0]] * 40 + [[0, 1, 0, 0]] * 8 + [[0, 0, 0, 1]] * 48)
    grouped = np.array([[8, 0, 0, 0]] * 5 + [[0, 8, 0, 0]] + [[0, 0, 0, 8]] * 6)
    narrow, wide = (kappa_interval(tables, seed=0) for tables in (alone, grouped))
    assert wide[1] - wide[0] > narrow[1] - narrow[0]
    assert narrow[0] < kappa(alone.sum(axis=0)) < narrow[1]
