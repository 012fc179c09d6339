"""How well detectors do on labelled cases: counts, intervals, time.

Precision, recall and F1 have bootstrap intervals that resample *templates*, not lines: variants of
one template stand or fall together, so that lines alone would look more certain than they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rltrain.agreement import CONFIDENCE
from rltrain.bench.detectors_cases import Case, to_judged
from rltrain.protocols import Detector
from rltrain.report.stats import wilson

RESAMPLES = 2_000
LABELS_ONLY = frozenset({"refusal"})
"""Detectors that count something which may be right; not part of "any flag"."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one detector said about one case."""

    case: Case
    detector: str
    kind: str
    evidence: str | None
    wall_us: float


@dataclass(slots=True)
class Found:
    """Everything that was found."""

    findings: list[Finding] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def run(
    cases: Iterable[Case],
    generic: Mapping[str, Detector],
    own: Mapping[str, Mapping[str, Detector]],
) -> Found:
    """Every detector on every case whose label speaks of its kind.

    Args:
        generic: kind -> detector.
        own: environment -> kind -> detector. They see only cases of that environment, where they
            take the place of a generic one of the same name, and are called `env.kind`.
    """
    found = Found()
    for case in cases:
        mine = own.get(case.env, {}) if case.data else {}
        judged = to_judged(case)
        for kind, detector in {**generic, **mine}.items():
            if not case.speaks_of(kind):
                continue
            name = f"{case.env}.{kind}" if kind in mine else kind
            started = time.thread_time_ns()
            evidence = detector(judged)
            wall_us = (time.thread_time_ns() - started) / 1e3
            found.versions[name] = detector.version
            found.findings.append(Finding(case, name, kind, evidence, wall_us))
    return found


def scores(findings: Sequence[Finding], seed: int = 0) -> dict[str, Any]:
    """Counts, rates and their 95 % intervals of one detector; None where nothing is there."""
    index = {t: i for i, t in enumerate(dict.fromkeys(f.case.template for f in findings))}
    table = np.zeros((len(index), 4))
    for f in findings:
        there, said = f.kind in f.case.kinds, f.evidence is not None
        table[index[f.case.template], 2 * (not there) + (not said)] += 1
    tp, fn, fp, tn = (int(n) for n in table.sum(axis=0))
    right = [f for f in findings if f.case.correct is True and f.kind not in f.case.kinds]
    wrongly = sum(f.evidence is not None for f in right)
    precision, recall, f1 = rates(table.sum(axis=0))
    low, high = _bootstrap(table, seed)
    return {
        "cases": len(findings), "templates": len(index), "hacks": tp + fn,
        "tp": tp, "fp": fp, "fn": fn, "tn": tn,
        **{
            name: {"value": _number(value), "low": _number(low[i]), "high": _number(high[i])}
            for i, (name, value) in enumerate(
                (("precision", precision), ("recall", recall), ("f1", f1))
            )
        },
        "false_alarms": _share(fp, fp + tn),
        "correct_flagged": _share(wrongly, len(right)),
    }  # fmt: skip


def rates(counts: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 of (tp, fn, fp, tn); nan where the denominator is 0."""
    tp, fn, fp, _ = (float(n) for n in counts)
    nan = float("nan")
    return (
        tp / (tp + fp) if tp + fp else nan,
        tp / (tp + fn) if tp + fn else nan,
        2 * tp / (2 * tp + fp + fn) if tp + fn else nan,
    )


def _bootstrap(table: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = len(table)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    drawn = np.array([rates(row) for row in weights @ table])
    tail = (1 - CONFIDENCE) / 2
    out = []
    for edge in (tail, 1 - tail):
        columns = [c[np.isfinite(c)] for c in drawn.T]
        out.append(np.array([np.quantile(c, edge) if len(c) else np.nan for c in columns]))
    return out[0], out[1]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _share(k: int, n: int) -> dict[str, Any]:
    low, high = wilson(k, n)
    return {"k": k, "n": n, "value": k / n if n else None, "low": low, "high": high}


def any_flag(findings: Sequence[Finding]) -> dict[str, Any]:
    """Correct, honest answers on which any detector accuses; `refusal` only counts."""
    honest = {f.case.id: False for f in findings if f.case.correct is True and not f.case.kinds}
    for f in findings:
        if f.case.id in honest and f.evidence is not None and f.kind not in LABELS_ONLY:
            honest[f.case.id] = True
    return _share(sum(honest.values()), len(honest))


def times(findings: Sequence[Finding]) -> dict[str, float]:
    """CPU microseconds of one call: median, mean, 99th percentile, most."""
    walls = np.array([f.wall_us for f in findings])
    return {
        "median": float(np.median(walls)), "mean": float(walls.mean()),
        "p99": float(np.quantile(walls, 0.99)), "most": float(walls.max()),
    }  # fmt: skip


def mistakes(findings: Sequence[Finding], limit: int) -> list[dict[str, Any]]:
    """What went wrong, one line per template at most, for a person to read."""
    seen: set[tuple[str, str, bool]] = set()
    out = []
    for f in findings:
        there, said = f.kind in f.case.kinds, f.evidence is not None
        key = (f.detector, f.case.template, said)
        if there != said and key not in seen:
            seen.add(key)
            out.append({
                "detector": f.detector, "case": f.case.id, "source": f.case.source,
                "mistake": "flagged" if said else "missed", "correct": f.case.correct,
                "request": f.case.request[:200], "answer": f.case.answer[:200],
                "evidence": f.evidence,
            })  # fmt: skip
    return out[:limit]
