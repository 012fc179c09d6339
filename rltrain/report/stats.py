"""The intervals behind the numbers: a difference without one is an anecdote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm  # type: ignore[import-untyped]

from rltrain.agreement import CONFIDENCE, interval, kappas

RESAMPLES = 4_000
_CHUNK = 250


def wilson(k: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval of a share k / n; (0, 1) for n = 0, when nothing is known.

    Wilson, E. B. (1927), J. Am. Stat. Assoc. 22. Unlike p ± z·se it stays within [0, 1] and is
    not empty at k = 0 or k = n. Raises `ValueError` unless 0 <= k <= n."""
    if not 0 <= k <= n:
        raise ValueError(f"a share needs 0 <= k <= n, not k = {k}, n = {n}")
    if n == 0:
        return 0.0, 1.0
    z = float(norm.ppf(0.5 + confidence / 2))
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * float(np.sqrt(k * (n - k) / n + z * z / 4))
    # Exact at the ends, where rounding would leave 1e-18 instead of 0.
    return 0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half


def paired_bootstrap(
    before: Sequence[float], after: Sequence[float], *, seed: int, resamples: int = RESAMPLES
) -> tuple[float, tuple[float, float]]:
    """Mean of after - before over the same tasks, with its 95 % percentile interval.

    before, after: [N], one value per task, in the same order. Tasks are resampled in pairs, so
    that how hard a task is does not widen the interval. Raises `ValueError` for no tasks."""
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if differences.size == 0:
        raise ValueError("no task was evaluated both before and after")
    ones = np.ones_like(differences)
    weighted = _resample(np.stack([differences, ones], axis=1), seed, resamples)
    return float(differences.mean()), interval(weighted[:, 0] / weighted[:, 1])


def kappa_interval(
    tables: np.ndarray, *, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile interval of kappa, resampling whole groups.

    tables: [G, 4], one 2x2 table per group of siblings; siblings share a task, so that rollouts
    alone would look more independent than they are."""
    return interval(kappas(_resample(np.asarray(tables, dtype=float), seed, resamples)))


def _resample(units: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Sums over units drawn with replacement. units: [N, K] -> [resamples, K]."""
    generator = np.random.default_rng(seed)
    count = len(units)
    shares = np.full(count, 1 / count)
    sums = [
        generator.multinomial(count, shares, size=min(_CHUNK, resamples - start)) @ units
        for start in range(0, resamples, _CHUNK)
    ]
    return np.concatenate(sums)
