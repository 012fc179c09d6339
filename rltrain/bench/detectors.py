"""Detectors against labelled answers: docs/benchmarks/detectors.{json,md}.

    planted by two vocabularies · harvested from trained policies · honest answers that look alike

Labels come from execution and from how an answer was made, never from a detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from rltrain import build
from rltrain.bench import detectors_planted as planted
from rltrain.bench.detectors_cases import Case, Planted, case_of, read_cases
from rltrain.bench.detectors_runs import run_level
from rltrain.bench.detectors_scores import Finding, any_flag, mistakes, run, scores, times
from rltrain.bench.results import keep, machine, table
from rltrain.config.compose import load_config
from rltrain.detectors import DETECTORS
from rltrain.errors import UserError
from rltrain.protocols import Environment

TASKS = 120
LIBRARY = 1_000
HARVESTED = "detectors_harvested_"
"""Rollouts of really trained policies, labelled: JSONL files beside this one."""
MISTAKES = 200


def shipped(env: Environment, count: int, seed: int) -> list[Case]:
    """All cases that come with the project, those of the environment included."""
    cases: list[Case] = []
    if isinstance(env, Planted):
        rows = chain.from_iterable(env.planted(v, count, seed) for v in ("a", "b"))
        cases += [case_of(row, env.name, n) for n, row in enumerate(rows, start=1)]
    for vocabulary in ("a", "b"):
        cases += [*planted.text_cases(vocabulary), *planted.code_cases(vocabulary)]
    cases += planted.text_cases("c")
    cases += planted.library_cases("stdlib", LIBRARY, seed)
    cases += planted.library_cases("packages", LIBRARY, seed)
    for path in sorted(Path(str(files("rltrain.bench"))).glob(f"{HARVESTED}*.jsonl")):
        cases += read_cases(path)
    return cases


def measure(
    cases: Sequence[Case], env: Environment, only: Sequence[str] = (), *, runs: int = 0
) -> dict[str, Any]:
    """Every figure, per detector and source of cases.

    Args:
        only: names of detectors; all if empty. Raises `UserError` for one that does not exist.
        runs: synthetic runs per scenario for the run-level alarms; 0 leaves them out.
    """
    own = env.detectors()
    unknown = sorted(set(only) - set(DETECTORS) - set(own))
    if unknown:
        known = ", ".join(sorted({*DETECTORS, *own}))
        raise UserError(f"there is no detector {unknown[0]!r}; there are {known}")
    wanted = set(only) or {*DETECTORS, *own}
    # A first pass warms imports and regular expressions; verifier caches stay cold for new cases.
    generic = {name: d for name, d in DETECTORS.items() if name in wanted}
    mine = {name: d for name, d in own.items() if name in wanted}
    run(cases[:20], generic, {env.name: mine})
    found = run(cases, generic, {env.name: mine})
    by_detector: dict[str, list[Finding]] = {}
    for finding in found.findings:
        by_detector.setdefault(finding.detector, []).append(finding)
    return {
        "detectors": {
            name: {
                "version": found.versions[name],
                "microseconds": times(findings),
                "by_source": {
                    source: scores([f for f in findings if f.case.source == source])
                    for source in dict.fromkeys(f.case.source for f in findings)
                },
            }
            for name, findings in sorted(by_detector.items())
        },
        "correct_flagged_by_any": {
            source: any_flag([f for f in found.findings if f.case.source == source])
            for source in dict.fromkeys(case.source for case in cases)
        },
        "cases": {
            source: sum(case.source == source for case in cases)
            for source in dict.fromkeys(case.source for case in cases)
        },
        "mistakes": mistakes(found.findings, MISTAKES),
        "run_level": run_level(runs) if runs else {},
    }


def main(
    paths: Sequence[Path], overrides: Sequence[str], *, count: int = TASKS, seed: int = 0,
    only: Sequence[str] = (), runs: int = 100,
) -> dict[str, Any]:  # fmt: skip
    """Measure the given files, or everything shipped if there are none. Raises `UserError`."""
    env = build.environment(load_config(overrides or ["experiment=segments_cpu"]).environment)
    if paths:
        cases = [case for path in paths for case in read_cases(path)]
        runs = 0
    else:
        cases = shipped(env, count, seed)
    where = machine()
    facts = measure(cases, env, only, runs=runs)
    return {"machine": where, "seed": seed, "environment": env.name, **facts}


def text_of(facts: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    parts = ["# Detectors", _cases_line(facts), table(list(_rows(facts)))]
    if facts["run_level"]:
        rows = [{"alarm": name, **row} for name, row in facts["run_level"].items()]
        parts += ["## Alarms over a run, on synthetic runs", table(rows)]
    rows = [
        {"source": source, "correct, honest": s["n"], "flagged by any": s["k"], "share": _span(s)}
        for source, s in facts["correct_flagged_by_any"].items()
        if s["n"]
    ]
    if rows:
        parts += ["## Correct, honest answers that any detector accuses", table(rows)]
    speed = [
        {"detector": name, "version": one["version"], **one["microseconds"]}
        for name, one in facts["detectors"].items()
    ]
    parts += ["## CPU microseconds per rollout", table(speed)]
    return "\n\n".join(parts)


def save(facts: Mapping[str, Any], out: Path) -> None:
    """Write `out/detectors.{json,md}`; what a person wrote about them lies in docs/detectors.md."""
    keep(out, "detectors", facts, text_of(facts))


def _cases_line(facts: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{source} {count:,}" for source, count in facts["cases"].items())
    return (
        f"Labelled answers: {counts}. Precision, recall and F1 with 95 % bootstrap intervals over "
        "templates; false alarms among all cases without that hack; correct answers flagged with "
        "95 % Wilson intervals."
    )


def _rows(facts: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    rows = []
    for name, one in facts["detectors"].items():
        for source, s in one["by_source"].items():
            rows.append({
                "detector": name, "version": one["version"], "cases of": source,
                "hacks": s["hacks"], "others": s["cases"] - s["hacks"],
                "templates": s["templates"],
                "precision": _span(s["precision"]), "recall": _span(s["recall"]),
                "F1": _span(s["f1"]), "correct flagged": _of(s["correct_flagged"]),
            })  # fmt: skip
    return rows


def _span(value: Mapping[str, Any]) -> str | None:
    if value["value"] is None:
        return None
    return f"{value['value']:.3f} ({value['low']:.2f}–{value['high']:.2f})"


def _of(share: Mapping[str, Any]) -> str | None:
    return f"{share['k']} of {share['n']}" if share["n"] else None
