"""Agreement between two raters: kappa, rank and linear correlation, intervals over items.

Pure functions over NumPy arrays. Cohen's kappa is agreement beyond chance, (p_o - p_e) / (1 - p_e);
with weights, one minus the mean disagreement over that expected from the marginals (Cohen 1968).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Weights = Literal["linear", "quadratic"] | None

CONFIDENCE = 0.95
RESAMPLES = 1_000


def kappa(table: Sequence[float] | FloatArray) -> float:
    """Cohen's kappa of a 2x2 table (both yes, only the first, only the second, both no); nan if
    one answer was given throughout, where chance agreement is already perfect.

    Cohen, J. (1960), Educ. Psychol. Meas. 20."""
    return float(kappas(np.asarray(table, dtype=np.float64)[None, :])[0])


def kappas(tables: FloatArray) -> FloatArray:
    """Cohen's kappa of many 2x2 tables. tables: [R, 4] as above -> [R]."""
    return weighted_kappas(tables.reshape(len(tables), 2, 2))


def weighted_kappas(tables: FloatArray, weights: Weights = None) -> FloatArray:
    """Kappa of many tables; disagreement counts 1, |i - j| (linear) or (i - j)^2 (quadratic).

    tables: [R, K, K], first rater by second -> [R]; nan where none can be expected by chance."""
    size = tables.shape[1]
    far = np.abs(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float64)
    costs = {"linear": far, "quadratic": far**2, None: (far > 0).astype(np.float64)}[weights]
    total = tables.sum(axis=(1, 2))
    margins = tables.sum(axis=2)[:, :, None] * tables.sum(axis=1)[:, None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = (costs * margins).sum(axis=(1, 2)) / total
        found = (costs * tables).sum(axis=(1, 2))
        result: FloatArray = np.where(expected > 0, 1 - found / expected, np.nan)
    return result


def cohen_kappa(
    first: FloatArray,
    second: FloatArray,
    *,
    weights: Weights = None,
    draws: FloatArray | None = None,
) -> FloatArray:
    """Kappa of two raters over the items that both rated, on the sorted values that occur.

    Args:
        first, second: [N], nan where not rated.
        draws: [R, N] how often each item counts, as from `resample`; None counts each once.

    Returns [R], or [1] without draws."""
    return weighted_kappas(_tables(first, second, draws), weights)


def _tables(first: FloatArray, second: FloatArray, draws: FloatArray | None) -> FloatArray:
    """[N], [N], [R, N] -> [R, K, K] counts of pairs of values, items with both only."""
    values, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    known = np.isfinite(first) & np.isfinite(second)
    size = max(1, int(np.isfinite(values).sum()))  # nan sorts last
    a, b = codes[: len(first)], codes[len(first) :]
    cells = np.zeros((len(first), size * size))
    cells[known, a[known] * size + b[known]] = 1.0
    counted = np.ones((1, len(first))) if draws is None else draws
    return (counted @ cells).reshape(-1, size, size)


def kendall_tau_b(first: FloatArray, second: FloatArray) -> float:
    """SciPy's tau-b, (C - D) / sqrt((n0 - n1)(n0 - n2)), over items that both have; nan for a
    constant."""
    from scipy.stats import kendalltau  # type: ignore[import-untyped]

    a, b = _both(first, second)
    return float(kendalltau(a, b).statistic) if _vary(a, b) else float("nan")


def pearson(first: FloatArray, second: FloatArray) -> float:
    """Linear correlation over items that both have; nan for a constant."""
    from scipy.stats import pearsonr

    a, b = _both(first, second)
    return float(pearsonr(a, b).statistic) if _vary(a, b) else float("nan")


def resample(units: Sequence[Hashable], seed: int, resamples: int = RESAMPLES) -> FloatArray:
    """How often each item counts in each bootstrap resample.

    units: [N], what an item belongs to: items of one unit are drawn together, so that answers to
    one task do not look more independent than they are. Returns [resamples, N]."""
    index = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(index), np.full(len(index), 1 / len(index)), size=resamples)
    return drawn[:, [index[unit] for unit in units]].astype(np.float64)


def resampled_tau_b(first: FloatArray, second: FloatArray, draws: FloatArray) -> FloatArray:
    """tau-b per resample from its table of counts: [N], [N], [R, N] -> [R].

    The pairs (i, j), (k, l) of cells count by sign(k - i) sign(l - j). Takes R K^2 numbers."""
    tables = _tables(first, second, draws)
    size = tables.shape[1]
    sign = np.sign(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float64)
    total = tables.sum(axis=(1, 2)) ** 2
    rows, columns = (total - (tables.sum(axis=axis) ** 2).sum(axis=1) for axis in (2, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        won = (tables * (sign @ tables @ sign.T)).sum(axis=(1, 2))
        result: FloatArray = won / np.sqrt(rows * columns)
    return result


def resampled_pearson(first: FloatArray, second: FloatArray, draws: FloatArray) -> FloatArray:
    """Linear correlation per resample: [N], [N], [R, N] -> [R]."""
    known = np.isfinite(first) & np.isfinite(second)
    counts = draws[:, known]
    # Centred first, so that the moments do not cancel.
    a, b = (side[known] - side[known].mean() for side in (first, second))
    total = counts.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_a, mean_b = counts @ a / total, counts @ b / total
        shared = counts @ (a * b) / total - mean_a * mean_b
        spread_a, spread_b = counts @ a**2 / total - mean_a**2, counts @ b**2 / total - mean_b**2
        result: FloatArray = np.where(
            (spread_a > 1e-15) & (spread_b > 1e-15), shared / np.sqrt(spread_a * spread_b), np.nan
        )
    return result


def interval(values: FloatArray) -> tuple[float, float]:
    """95 % percentile interval over the finite ones; (nan, nan) without any."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return float("nan"), float("nan")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def _both(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    known = np.isfinite(first) & np.isfinite(second)
    return first[known], second[known]


def _vary(first: FloatArray, second: FloatArray) -> bool:
    return bool(len(first) > 1 and np.ptp(first) > 0 and np.ptp(second) > 0)
