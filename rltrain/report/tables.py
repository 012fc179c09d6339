"""The tables of the report, as rows of text that the template escapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rltrain.report import text
from rltrain.report.data import Run
from rltrain.report.evals import pair, sample_pairs
from rltrain.report.scan import Scan, pick_hacks
from rltrain.track.redact import redact_text

HACKS_PER_DETECTOR = 6
CHANGED, UNCHANGED = 12, 6
_MOST_EVENTS = 300

CHECKS = {
    "ledger_conserved": "issued = consumed + dropped + in flight",
    "rollouts_recorded": "each step's rollouts on disk are as many as its metrics say",
    "consumed_recorded": "the ledger's consumed rollouts all lie on disk",
    "no_lease_twice": "no group was trained on in two steps",
    "steps_consecutive": "no step is missing from metrics.jsonl",
    "metrics_finite": "every logged number is finite",
    "eval_before_recomputed": "exact before training follows from the recorded answers",
    "eval_after_recomputed": "exact after training follows from the recorded answers",
}


def hacks(run: Run, found: Scan) -> dict[str, Any]:
    """Examples per detector, and how many there are altogether."""
    rows = [
        {"detector": detector} | example
        for detector in sorted(found.hacks)
        for example in pick_hacks(found.hacks[detector], HACKS_PER_DETECTOR)
    ]
    counts = [
        {
            "detector": name,
            "found": found.flags[name],
            "share": found.flags[name] / found.rollouts if found.rollouts else None,
            "actions": ", ".join(
                f"{action} ({count:,})" for (detector, action), count in sorted(
                    found.actions.items()) if detector == name
            ) or "none",
            **run.ends(f"flag/{name}", absent=0.0),
            "before": _held_out(run, "before", name),
            "after": _held_out(run, "after", name),
        }
        for name in sorted({*run.detectors, *found.flags})
    ]
    return {"rows": rows, "counts": counts, "per_detector": HACKS_PER_DETECTOR}


def _held_out(run: Run, when: str, detector: str) -> float | None:
    """Share of held-out answers that a detector flagged; an evaluation lists only what it found."""
    flags = run.facts[f"eval_{when}"].get("flags")
    return None if flags is None else flags.get(detector, 0.0)


def pairs(run: Run) -> dict[str, Any]:
    """Held-out tasks at both ends: counts of what became of them, and a random draw."""
    seed = run.seed or 0
    found = pair(run.before, run.after)
    return {
        "count": found.count, "fixed": len(found.fixed), "broken": len(found.broken),
        "right": len(found.right), "wrong": len(found.wrong), "seed": seed,
        "rows": sample_pairs(found, changed=CHANGED, unchanged=UNCHANGED, seed=seed),
    }


def judge(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """2x2 tables of judge against truth: the labelled pairs, and the rollouts of training."""
    fact, on_policy = summary["judge"], summary["judge"]["on_policy"]
    found = []
    if fact["kappa"] is not None or fact["n"]:
        cells = ("true_positive", "false_positive", "false_negative", "true_negative")
        found.append({
            "title": "Calibration: labelled held-out pairs",
            "cells": [fact.get(cell) for cell in cells] if cells[0] in fact else None,
            "accuracy": fact.get("accuracy"), **_agreement(fact),
        })
    if on_policy:
        cells = ("both_yes", "judge_only", "truth_only", "both_no")
        found.append({
            "title": "On policy: the rollouts of training that reached the judge",
            "cells": [on_policy[cell] for cell in cells],
            "accuracy": (on_policy["both_yes"] + on_policy["both_no"]) / on_policy["n"],
            **_agreement(on_policy),
        })
    return found


def _agreement(values: Mapping[str, Any]) -> dict[str, Any]:
    interval = values.get("ci95")
    return {
        "kappa": values["kappa"], "n": values["n"],
        "false_positive_rate": values.get("false_positive_rate"),
        "ci95": None if not interval else " to ".join(text.decimal(end, 2) for end in interval),
    }


def learned_from(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What an offline run was trained on, and with which settings; nothing for an online run."""
    rows: list[tuple[str, str]] = []
    for part in ("data", "offline"):
        for name, value in (summary[part] or {}).items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            rows += [(text.words(f"{name} {key}".strip()), _value(item)) for key, item in inner]
    return rows


def _value(value: Any) -> str:
    return text.decimal(value) if isinstance(value, float) else str(value)


def ledger(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The book as it is added up: issued, then every fate, then what that comes to."""
    book = summary["ledger"]
    if book["issued"] is None:
        return []
    fates = [
        ("consumed by a training step", book["consumed"]),
        *((f"dropped: {text.words(reason)}", count) for reason, count in book["dropped"].items()),
        ("in flight at the end", book["in_flight"]),
    ]
    total = sum(count or 0 for _, count in fates)
    rows = [{"what": "issued", "count": book["issued"], "kind": "total"}]
    rows += [{"what": what, "count": count, "kind": ""} for what, count in fates]
    rows += [{"what": "sum of fates", "count": total, "kind": "total"}]
    for row in rows:
        row["share"] = (row["count"] or 0) / book["issued"] if book["issued"] else None
    return rows


def timing(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (text.words(name.removesuffix("_s")), text.duration(value))
        for name, value in summary["timing"].items() if name.endswith("_s")
    ]


def checks(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    states = {True: ("holds", "good"), False: ("VIOLATED", "bad"), None: ("cannot be told", "")}
    return [
        {"what": CHECKS.get(name, text.words(name)), "state": states[value][0],
         "mood": states[value][1]}
        for name, value in summary["checks"].items()
    ]


def verdict(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit found, as the page shows it."""
    releases = found["re_leased"] or {"leases": None, "times": None}
    rows = [
        ("adds up", {True: "yes", False: "NO", None: text.NONE}[found["adds_up"]]),
        ("groups in two step files", text.integer(found["duplicates"]["groups_in_two_files"])),
        ("skipped tasks", text.integer(found["skipped_positions"])),
        ("leases given out again", text.integer(releases["leases"])),
        ("resumed from a checkpoint", text.integer(_count(found["resumes"]))),
        ("dropped rollouts, tokens longer than consumed", _longer(found["lengths"])),
    ]
    return {
        "sound": found["sound"], "problems": [redact_text(line) for line in found["problems"]],
        "state": found["state"], "rows": rows,
    }


def _count(items: Any) -> int | None:
    return None if items is None else len(items)


def _longer(lengths: Mapping[str, Any] | None) -> str:
    difference = (lengths or {}).get("difference")
    if difference is None:
        return text.NONE
    value, interval = difference["tokens"], difference["ci95"]
    if interval is None:
        return f"{value:+.1f}"
    return f"{value:+.1f} (95 % interval {interval[0]:+.1f} to {interval[1]:+.1f})"


def events(run: Run) -> dict[str, Any]:
    """The last events, oldest first, and how many earlier ones were left out."""
    shown = run.events[-_MOST_EVENTS:]
    rows = [
        {
            "time": text.moment(event.get("time")), "process": event.get("process", ""),
            "kind": event.get("kind", ""), "text": redact_text(str(event.get("text", ""))),
        }
        for event in shown
    ]
    return {"rows": rows, "left_out": len(run.events) - len(shown)}


def provenance(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Seed, engine, versions and machine: what somebody else would need to do it again."""
    engine = {f"engine {key}": value for key, value in summary["engine"].items()}
    machine = {f"machine {text.words(key)}": value for key, value in summary["machine"].items()}
    rows = {"seed": summary["seed"]} | engine | summary["versions"] | machine
    return [(name, text.NONE if value is None else str(value)) for name, value in rows.items()]
