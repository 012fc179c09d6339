"""A judge beside several raters: adjudicated label, human ceiling, alternative annotator test.

Everywhere `scores` is [N, M], item by rater, in [0, 1] with nan where a rater did not rate; `judge`
is [N] likewise. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rltrain.agreement import FloatArray, cohen_kappa, interval

FEWEST_RATERS = 2
"""Per item, for the alternative annotator test."""
FEWEST_ITEMS = 30
"""Per rater; one with fewer is left out of it."""
FALSE_DISCOVERY = 0.05
WINNING = 0.5
"""Share of raters over whom the judge must win."""


def decide(scores: FloatArray, pass_at: float) -> FloatArray:
    """1.0 where a score passes, 0.0 where it does not, nan where there is none."""
    return np.where(np.isfinite(scores), (scores >= pass_at).astype(np.float64), np.nan)


def majority(decisions: FloatArray) -> FloatArray:
    """[N, M] -> [N]: what most say; nan for a tie and where nobody said anything."""
    yes = np.nansum(decisions == 1.0, axis=1)
    no = np.nansum(decisions == 0.0, axis=1)
    return np.where(yes > no, 1.0, np.where(no > yes, 0.0, np.nan))


def noisy(truth: FloatArray, errors: Sequence[float], seed: int) -> FloatArray:
    """Synthetic raters: copies of the truth [N], each wrong at random at its own rate. [N, M]."""
    rng = np.random.default_rng(seed)
    wrong = rng.random((len(truth), len(errors))) < np.asarray(errors)
    return np.abs(truth[:, None] - wrong)


def ceiling(decisions: FloatArray, judge: FloatArray, draws: FloatArray) -> dict[str, Any]:
    """How well raters agree with one another, and the judge with them.

    Args:
        decisions: [N, M] of the raters; judge: [N]. 1.0, 0.0 or nan.
        draws: [R, N], as from `agreement.resample`.

    Returns, of people and of the judge, the mean kappa over pairs, and over raters left out in turn
    against the majority of the others; `share` is judge over people by pairs. Intervals resample
    items. nan where it cannot be computed (fewer than two raters)."""
    both = np.concatenate([np.ones((1, len(judge))), draws])
    raters = range(decisions.shape[1])
    column = decisions.T
    two = list(combinations(raters, 2))
    pairs = _stack([cohen_kappa(column[a], column[b], draws=both) for a, b in two])
    against = _stack([cohen_kappa(judge, column[a], draws=both) for a in raters])
    rests = [majority(np.delete(decisions, a, axis=1)) for a in raters]
    left_out = _stack([cohen_kappa(column[a], rests[a], draws=both) for a in raters])
    replaced = _stack([cohen_kappa(judge, rests[a], draws=both) for a in raters])
    people, ours = _mean(pairs), _mean(against)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(people > 0, ours / people, np.nan)
    return {
        "people": _value(people),
        "judge": _value(ours),
        "share": _value(share),
        "people_left_out": _value(_mean(left_out)),
        "judge_left_out": _value(_mean(replaced)),
        "pairs": {f"{a}-{b}": float(row[0]) for (a, b), row in zip(two, pairs, strict=False)},
        "judge_with": against[:, 0].tolist(),
    }


def alt_test(
    scores: FloatArray,
    judge: FloatArray,
    *,
    epsilon: float,
    nominal: bool,
    fewest_items: int = FEWEST_ITEMS,
) -> dict[str, Any]:
    """The alternative annotator test: may the judge stand in for a rater?

    Each rater is left out in turn. On an item, judge and rater each get the share of the others who
    say the same (nominal), or minus the root mean squared distance to them. W^f = 1 where the judge
    is at least as close, W^h = 1 where the rater is (ties count for both), d = W^h - W^f. One-sided
    t-test of mean d < epsilon (Wilcoxon below 30 items), Benjamini-Yekutieli over raters at 0.05;
    omega is the share of raters over whom the judge wins, rho the mean of W^f. Passed from omega
    0.5 on. Calderon et al., arXiv 2501.10970.

    Raters with fewer than `fewest_items` items that another rated as well are left out; omega and
    rho are nan, and nothing is passed, if that leaves nobody."""
    compared = np.isfinite(judge) & (np.isfinite(scores).sum(axis=1) >= FEWEST_RATERS)
    raters: dict[int, dict[str, float]] = {}
    for rater in range(scores.shape[1]):
        items = compared & np.isfinite(scores[:, rater])
        if items.sum() < fewest_items:
            continue
        rest = np.delete(scores[items], rater, axis=1)
        machine = _closeness(judge[items], rest, nominal)
        person = _closeness(scores[items, rater], rest, nominal)
        better, worse = machine >= person, person >= machine
        difference = worse.astype(np.float64) - better
        raters[rater] = {
            "items": int(items.sum()), "rho": float(better.mean()),
            "difference": float(difference.mean()), "p": _p_value(difference, epsilon),
        }  # fmt: skip
    won = benjamini_yekutieli([one["p"] for one in raters.values()], FALSE_DISCOVERY)
    omega = float(np.mean(won)) if raters else float("nan")
    rho = float(np.mean([one["rho"] for one in raters.values()])) if raters else float("nan")
    return {
        "epsilon": epsilon, "omega": omega, "rho": rho, "passed": bool(omega >= WINNING),
        "raters": {
            number: {**one, "won": bool(w)}
            for (number, one), w in zip(raters.items(), won, strict=True)
        },
    }  # fmt: skip


def benjamini_yekutieli(p_values: Sequence[float], rate: float) -> list[bool]:
    """Which null hypotheses fall at a false discovery rate, whatever their dependence: the i least,
    where i is the greatest with p_(i) <= i / m * rate / (1 + 1/2 + ... + 1/m).

    Benjamini and Yekutieli (2001), Ann. Statist. 29."""
    count = len(p_values)
    if not count:
        return []
    order = np.argsort(p_values)
    limits = np.arange(1, count + 1) / count * rate / np.sum(1 / np.arange(1, count + 1))
    below = np.flatnonzero(np.asarray(p_values)[order] <= limits)
    rejected = np.zeros(count, dtype=bool)
    if below.size:
        rejected[order[: below[-1] + 1]] = True
    return [bool(one) for one in rejected]


def _closeness(said: FloatArray, others: FloatArray, nominal: bool) -> FloatArray:
    """[N], [N, M - 1] -> [N], greater is closer."""
    if nominal:
        same = np.where(np.isfinite(others), (others == said[:, None]).astype(np.float64), np.nan)
        return np.asarray(np.nanmean(same, axis=1))
    return np.asarray(-np.sqrt(np.nanmean((others - said[:, None]) ** 2, axis=1)))


def _p_value(difference: FloatArray, epsilon: float) -> float:
    from scipy.stats import ttest_1samp, wilcoxon  # type: ignore[import-untyped]

    if np.ptp(difference) == 0:  # neither test has anything to divide by
        return 0.0 if difference[0] < epsilon else 1.0
    if len(difference) < FEWEST_ITEMS:
        return float(wilcoxon(difference - epsilon, alternative="less").pvalue)
    return float(ttest_1samp(difference, epsilon, alternative="less").pvalue)


def _stack(rows: Sequence[FloatArray]) -> FloatArray:
    """[K, 1 + R]; no row is one row of nan."""
    return np.stack(rows) if rows else np.full((1, 1), np.nan)


def _mean(rows: FloatArray) -> FloatArray:
    """Over pairs for which there is a kappa."""
    known = np.isfinite(rows)
    with np.errstate(invalid="ignore"):
        mean: FloatArray = np.where(known, rows, 0.0).sum(axis=0) / known.sum(axis=0)
    return mean


def _value(found: FloatArray) -> dict[str, float]:
    """The first entry is the estimate, the others are resamples."""
    low, high = interval(found[1:])
    return {"value": float(found[0]), "low": low, "high": high}


def disagreements(
    keys: Sequence[str], decisions: FloatArray, settled: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Items on which raters differ: how they voted, and whether somebody settled it."""
    found = []
    for key, row, label in zip(keys, decisions, majority(decisions), strict=True):
        yes, no = int((row == 1.0).sum()), int((row == 0.0).sum())
        if yes and no:
            found.append({
                "item": key, "yes": yes, "no": no, "tie": bool(np.isnan(label)),
                "settled": settled.get(key),
            })  # fmt: skip
    return found
