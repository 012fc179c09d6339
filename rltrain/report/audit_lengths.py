"""Are dropped rollouts longer than consumed ones? Losing the long ones would bias the policy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student  # type: ignore[import-untyped]

from rltrain.report.audit_ledger import CONSUMED, Lengths

CONFIDENCE = 0.95


def length_bias(lengths: Lengths) -> dict[str, Any]:
    """Mean sampled tokens of consumed and of dropped rollouts, their difference, and by reason.

    Rollouts that the system lost have no length and are not in it. The interval is Student's, from
    a variance between whole groups (siblings answer the same task, so that rollouts alone would
    look more independent than they are); with groups of one it is Welch's. None where either side
    comes from fewer than two groups."""
    by_fate: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for _, fate, count, tokens in lengths:
        by_fate[fate].append((count, tokens))
    return {
        "consumed": _mean(by_fate.get(CONSUMED, ())),
        "dropped": _mean([p for fate, pairs in by_fate.items() if fate != CONSUMED for p in pairs]),
        "by_reason": {
            fate: _mean(by_fate[fate]) for fate in sorted(by_fate) if fate != CONSUMED
        },
        "difference": _difference(lengths),
    }


def _mean(pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    count, tokens = (sum(column) for column in zip(*pairs, strict=True)) if pairs else (0, 0)
    return {"n": count, "mean_tokens": tokens / count if count else None}


def _difference(lengths: Lengths) -> dict[str, Any] | None:
    """Mean of dropped minus mean of consumed, with its interval."""
    places = {lease: place for place, lease in enumerate(sorted({row[0] for row in lengths}))}
    counts, tokens = np.zeros((2, len(places))), np.zeros((2, len(places)))  # [side, group]
    for lease, fate, count, total in lengths:
        side = int(fate != CONSUMED)
        counts[side, places[lease]] += count
        tokens[side, places[lease]] += total
    known = counts.sum(axis=1)
    if not known.all():
        return None
    means = tokens.sum(axis=1) / known
    found: dict[str, Any] = {"tokens": float(means[1] - means[0]), "ci95": None}
    groups = int((counts > 0).sum(axis=1).min())
    if groups < 2:
        return found
    # What each group adds to the two means beyond their values (linearised ratio estimators).
    parts = (tokens - means[:, None] * counts) / known[:, None]
    scale = np.array([n / (n - 1) for n in (counts > 0).sum(axis=1)])
    both = float((parts[0] * parts[1]).sum())
    variance = float((scale * (parts**2).sum(axis=1)).sum()) - 2 * both
    half = float(student.ppf(0.5 + CONFIDENCE / 2, groups - 1)) * max(0.0, variance) ** 0.5
    found["ci95"] = [found["tokens"] - half, found["tokens"] + half]
    return found
