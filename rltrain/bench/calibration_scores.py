"""The figures of a calibration: agreement with labels, with graded scores, by kind; the raters.

Labels and verdicts are [N], 1.0 or 0.0, and nan where there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from rltrain.agreement import (
    FloatArray,
    Weights,
    cohen_kappa,
    interval,
    kendall_tau_b,
    pearson,
    resample,
    resampled_pearson,
    resampled_tau_b,
)
from rltrain.bench.calibration_raters import disagreements
from rltrain.bench.calibration_set import GroundTruth, Item

SHOWN = 200
"""Disagreements listed."""
MOST_GRADES = 20
"""Different scores up to which weighted kappa, and the interval of tau-b, are computed."""


def agreement(labels: FloatArray, passed: FloatArray, draws: FloatArray) -> dict[str, Any]:
    """Judge against labels, [N] each of 1.0, 0.0 or nan: counts, rates, kappa with interval."""
    known = np.isfinite(labels) & np.isfinite(passed)
    pairs = Counter(zip(labels[known].tolist(), passed[known].tolist(), strict=True))
    tp, fn, fp, tn = (pairs[key] for key in ((1, 1), (1, 0), (0, 1), (0, 0)))
    low, high = interval(cohen_kappa(labels, passed, draws=draws))
    return {
        "n": int(known.sum()),
        "cells": {"true_positive": tp, "false_negative": fn, "false_positive": fp,
                  "true_negative": tn},
        "accuracy": (tp + tn) / known.sum() if known.any() else float("nan"),
        "false_positive_rate": fp / (fp + tn) if fp + tn else float("nan"),
        "false_negative_rate": fn / (fn + tp) if fn + tp else float("nan"),
        "kappa": {
            "value": float(cohen_kappa(labels, passed)[0]), "low": low, "high": high,
        },
    }  # fmt: skip


def graded(
    truth: GroundTruth, labels: FloatArray, scores: FloatArray, draws: FloatArray
) -> dict[str, Any]:
    """Weighted kappa, tau-b and Pearson of the judge's scores with the raters' (lower) median."""
    grades = np.full(len(scores), np.nan)
    for place, row in enumerate(np.sort(truth.scores, axis=1)):  # nan sorts last
        count = int(np.isfinite(row).sum())
        if count and np.isfinite(labels[place]):
            settled = truth.items[place].key in truth.settled
            grades[place] = labels[place] if settled else row[(count - 1) // 2]
    known = np.isfinite(grades) & np.isfinite(scores)
    found: dict[str, Any] = {}
    low, high = interval(resampled_pearson(grades, scores, draws))
    found["pearson"] = {"value": pearson(grades, scores), "low": low, "high": high}
    few = len(np.unique(np.concatenate([grades[known], scores[known]]))) <= MOST_GRADES
    nan = float("nan")
    low, high = interval(resampled_tau_b(grades, scores, draws)) if few else (nan, nan)
    found["tau_b"] = {"value": kendall_tau_b(grades, scores), "low": low, "high": high}
    chosen: tuple[Weights, ...] = ("linear", "quadratic") if few else ()
    for weights in chosen:
        low, high = interval(cohen_kappa(grades, scores, weights=weights, draws=draws))
        value = float(cohen_kappa(grades, scores, weights=weights)[0])
        found[f"kappa_{weights}"] = {"value": value, "low": low, "high": high}
    return found


def described(truth: GroundTruth, decisions: FloatArray, labels: FloatArray) -> dict[str, Any]:
    keys = [item.key for item in truth.items]
    differ = disagreements(keys, decisions, truth.settled)
    by_key = {item.key: item for item in truth.items}
    shown = [
        {**one, "request": by_key[one["item"]].task.prompt[-1].content,
         "answer": by_key[one["item"]].answer}
        for one in differ[:SHOWN]
    ]  # fmt: skip
    kinds = [item.kind for item in truth.items]
    strata = Counter(zip(kinds, map(str, labels), strict=True))
    return {
        "source": truth.source, "synthetic": truth.synthetic, "digest": truth.digest,
        "n": len(keys), "adjudicated": len(truth.settled),
        "undecided": int(np.isnan(labels).sum()), "disagreements": len(differ), "shown": shown,
        "raters": [
            {"name": name, "items": int(np.isfinite(column).sum()),
             "yes": float(np.nanmean(column)) if np.isfinite(column).any() else None,
             "kappa_with_label": float(cohen_kappa(column, labels)[0])}
            for name, column in zip(truth.raters, decisions.T, strict=True)
        ],
        "strata": [
            {"kind": kind, "right": strata[kind, "1.0"], "wrong": strata[kind, "0.0"]}
            for kind in sorted(set(kinds))
        ],
    }  # fmt: skip


def by_kind(
    items: Sequence[Item], labels: FloatArray, passed: FloatArray
) -> dict[str, dict[str, Any]]:
    found = {}
    for kind in sorted({item.kind for item in items}):
        here = np.array([item.kind == kind for item in items])
        draws = resample([item.task.id for item in items if item.kind == kind], 0)
        found[kind] = agreement(labels[here], passed[here], draws)
    return found
