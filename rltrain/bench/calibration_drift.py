"""Is what a policy answers now like what the judge was measured on?

PSI over bins, sum (p - q) ln(p / q), and chi-square, for the kind of answer, the fields that it
names and its length. Pure functions.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

MOST_PSI = 0.2
"""Above it, a distribution counts as changed (the usual reading of PSI)."""
BINS = 10
"""Commonest values; all others share the last bin. Many bins look like drift in small samples."""
SMOOTHING = 0.5
"""Added to every count, so that an empty bin has a logarithm."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+|\"([^\"\\]{1,40})\"\s*:")


def kind_of(answer: str) -> str:
    """A coarse kind that any answer has."""
    text = answer.strip()
    if not text:
        return "empty"
    if text[0] in "{[":
        try:
            json.loads(text)
            return "json"
        except ValueError:
            pass
    if "\n" in text:
        return "several lines"
    joints = len(re.findall(r"\b(?:AND|OR)\b", text))
    if joints:
        return f"{min(joints, 3) + 1}{'+' if joints > 2 else ''} clauses"
    return "one word" if len(text.split()) == 1 else "one clause"


def fields_of(answer: str) -> list[str]:
    """Names with an underscore, and keys of JSON: what a structured answer is about."""
    return sorted({match[1] or match[0] for match in _NAME.finditer(answer)}) or ["none"]


def drift(reference: Sequence[str], current: Sequence[str]) -> dict[str, Any]:
    """Both samples of answers compared by kind, fields and length.

    Returns per feature `psi`, `chi_square`, `p`, `flagged`, and `bins` with both shares; the bins
    of lengths are the quantiles of the reference. Raises `ValueError` for an empty sample."""
    if not reference or not current:
        raise ValueError("drift needs two samples with something in them.")
    edges = np.unique(np.quantile([len(text) for text in reference], np.linspace(0, 1, 6)[1:-1]))

    def length_of(text: str) -> str:
        place = int(np.searchsorted(edges, len(text), side="left"))
        low = f"> {edges[place - 1]:.0f}" if place else ""
        high = f"<= {edges[place]:.0f}" if place < len(edges) else ""
        return " and ".join(part for part in (low, high) if part) + " characters"

    samples = (reference, current)
    features = {
        "kind": [[kind_of(text) for text in texts] for texts in samples],
        "fields": [[name for text in texts for name in fields_of(text)] for texts in samples],
        "length": [[length_of(text) for text in texts] for texts in samples],
    }
    return {name: compare(*(Counter(values) for values in both)) for name, both in features.items()}


def compare(reference: Mapping[str, int], current: Mapping[str, int]) -> dict[str, Any]:
    """PSI and chi-square of two tables of counts."""
    from scipy.stats import chi2_contingency  # type: ignore[import-untyped]

    names = _bins(reference, current)
    table = np.array([_counts(names, counts) for counts in (reference, current)])
    test = chi2_contingency(table) if table.shape[1] > 1 else None
    value = psi(table[0], table[1])
    shares = table / table.sum(axis=1, keepdims=True)
    return {
        "psi": value, "flagged": bool(value > MOST_PSI),
        "chi_square": float(test.statistic) if test else 0.0,
        "p": float(test.pvalue) if test else 1.0,
        "bins": [
            {"bin": name, "reference": float(p), "current": float(q)}
            for name, p, q in zip(names, *shares, strict=True)
        ],
    }  # fmt: skip


def psi(reference: Iterable[float], current: Iterable[float]) -> float:
    """Population stability index of two rows of counts over the same bins."""
    p, q = (np.asarray(list(row), dtype=np.float64) + SMOOTHING for row in (reference, current))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((p - q) * np.log(p / q)))


def _bins(reference: Mapping[str, int], current: Mapping[str, int]) -> list[str]:
    """The commonest of both, and one for the rest if there is a rest."""
    sizes = [sum(counts.values()) for counts in (reference, current)]
    shares = {
        name: reference.get(name, 0) / sizes[0] + current.get(name, 0) / sizes[1]
        for name in {**reference, **current}
    }
    ranked = sorted(shares, key=lambda name: (-shares[name], name))
    return ranked if len(ranked) <= BINS else [*ranked[: BINS - 1], "all others"]


def _counts(names: Sequence[str], counts: Mapping[str, int]) -> list[int]:
    known = [counts.get(name, 0) for name in names]
    rest = sum(counts.values()) - sum(known)
    return [*known[:-1], known[-1] + rest]
