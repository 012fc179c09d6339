"""summary.json: the numbers of a run for a machine, each computed from what is on disk.

Nothing is assumed: conservation is added up, the evaluation is recomputed from the recorded
answers, and a number that was never measured is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rltrain.agreement import kappa
from rltrain.report.data import Run, load
from rltrain.report.evals import deltas, is_exact
from rltrain.report.scan import Scan, scan
from rltrain.report.stats import kappa_interval
from rltrain.track.files import nulled, to_json, write_text

_EVAL = (
    "exact", "valid", "n", "ci95", "reward", "hack_rate", "flags", "by_tier", "faults",
    "wall_s",
)
_TIMING = ("setup_s", "build_s", "train_s", "generate_s", "learn_s", "sync_s")
_SAME = 1e-9


def summarize(run_dir: Path) -> dict[str, Any]:
    """Read a run directory into one dict. Raises `UserError` if it does not exist."""
    return summary_of(load(run_dir), scan(run_dir))


def write_summary(run_dir: Path) -> Path:
    """Write summary.json, whole or not at all; returns its path."""
    path = run_dir / "summary.json"
    write_text(path, to_json(summarize(run_dir), indent=2) + "\n")
    return path


def summary_of(run: Run, found: Scan) -> dict[str, Any]:
    """The summary of a run that is already read. Non-finite numbers are null."""
    summary: dict[str, Any] = nulled(_summary(run, found))
    return summary


def _summary(run: Run, found: Scan) -> dict[str, Any]:
    facts = run.facts
    ledger = _ledger(run)
    seed = run.seed or 0
    return {
        "name": run.name,
        "seed": run.seed,
        "steps": {"done": len(run.rows), "planned": run.planned},
        "window": _window(run),
        "eval": {
            "before": _pick(facts["eval_before"], _EVAL),
            "after": _pick(facts["eval_after"], _EVAL),
            **deltas(run.before, run.after, seed),
        },
        "reward": run.ends("reward/mean"),
        "truth": run.ends("truth/mean"),
        "valid": run.ends("valid/rate"),
        "gates": {gate: _gate(run, gate) for gate in run.gates},
        "flags": {
            name: run.ends(f"flag/{name}", absent=0.0) | {"found": found.flags[name]}
            for name in run.detectors
        },
        "flags_any": run.ends("flag/any"),
        "data": facts["data"] or None,
        "offline": facts["offline"] or None,
        "judge": _judge(facts["judge"]) | {"on_policy": judged(found, seed)},
        "ledger": ledger,
        "rollouts": {
            "recorded": found.rollouts, "trained": found.trained, "groups": found.leases,
        },
        "timing": dict.fromkeys(_TIMING) | facts["timing"],
        "tokens": {name: _total(run, f"tokens/{name}") for name in ("generated", "trained")},
        "staleness": _staleness(run),
        "mismatch": {
            "mean_abs_logprob": run.mean("mismatch/mean_abs_logprob", run.rows),
            "k3": run.mean("mismatch/k3", run.rows),
        },
        "alarms": run.alarms,
        "faults": _faults(run),
        "engine": dict.fromkeys(("name", "version", "dtype")) | facts["engine"],
        "versions": facts["run"].get("versions") or {},
        "machine": facts["run"].get("machine") or {},
        "checks": _checks(run, found, ledger),
        "problems": [*run.problems, *(f"rollouts/{line}" for line in found.damaged)],
    }


def _pick(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: values.get(name) for name in names}


def _window(run: Run) -> dict[str, Any]:
    """Which steps `first` and `last` are means of."""
    size = run.window
    steps = [int(row["step"]) for row in run.rows]
    return {
        "steps": size,
        "first": [steps[0], steps[size - 1]] if steps else None,
        "last": [steps[-size], steps[-1]] if steps else None,
    }


def _gate(run: Run, gate: str) -> dict[str, Any]:
    """`first`, `last`: passed of those that reached it; `reached`: share of all rollouts."""
    reached = run.ends(f"gate/{gate}/reached", absent=0.0)
    return run.ends(f"gate/{gate}/pass") | {"reached": reached}


def _judge(fact: Mapping[str, Any]) -> dict[str, Any]:
    """Agreement with executed truth on the labelled held-out pairs."""
    judge = {"kappa": None, "n": None, "ci95": None} | dict(fact)
    if judge["ci95"] is None and "kappa_low" in fact:
        judge["ci95"] = [fact["kappa_low"], fact["kappa_high"]]
    return judge


def _faults(run: Run) -> dict[str, int] | None:
    """Siblings lost to the system, by kind; None if nobody counted.

    The ledger also knows the groups that were lost whole, which no step ever saw."""
    dropped = run.facts["ledger"].get("dropped")
    if dropped is not None:
        return {
            reason.removeprefix("fault:"): count for reason, count in dropped.items()
            if reason.startswith("fault:")
        }
    if not run.rows:
        return None
    return {kind: _total(run, f"faults/{kind}") or 0 for kind in run.names("faults/")}


def _total(run: Run, name: str) -> int | None:
    values = [row[name] for row in run.rows if name in row]
    finite = [value for value in values if math.isfinite(value)]
    return round(sum(finite)) if values else None


def _staleness(run: Run) -> dict[str, float | None]:
    """Lag in policy versions: mean over rollouts (steps weighted by them), and the largest."""
    rows = [row for row in run.rows if "lag/mean" in row]
    counts = [row.get("rollouts/count", 0.0) for row in rows]
    weights = counts if rows and all(counts) else [1.0] * len(rows)
    total = sum(weights)
    weighted = sum(row["lag/mean"] * weight for row, weight in zip(rows, weights, strict=True))
    largest = [row["lag/max"] for row in run.rows if "lag/max" in row]
    return {"mean": weighted / total if total else None, "max": max(largest, default=None)}


def _ledger(run: Run) -> dict[str, Any]:
    """The ledger's last word, or what the last logged step said if the run ended without one."""
    fact = run.facts["ledger"]
    names = ("issued", "consumed", "in_flight")
    if fact:
        ledger = _pick(fact, names) | {"dropped": fact.get("dropped") or {}, "source": "ledger"}
    else:
        last = next((row for row in reversed(run.rows) if "ledger/issued" in row), None)
        if last is None:
            return dict.fromkeys((*names, "dropped", "conserved", "source"))
        dropped = int(last.get("ledger/dropped", 0))
        ledger = {name: int(last.get(f"ledger/{name}", 0)) for name in names}
        ledger |= {
            "dropped": {"reason not recorded": dropped} if dropped else {},
            "source": f"metrics of step {int(last['step'])}",
        }
    return ledger | {"conserved": _conserved(ledger)}


def _conserved(ledger: Mapping[str, Any]) -> bool | None:
    """issued = consumed + dropped + in flight, added up; None if a term is unknown."""
    terms = [ledger["consumed"], ledger["in_flight"], *ledger["dropped"].values()]
    if ledger["issued"] is None or any(term is None for term in terms):
        return None
    return bool(ledger["issued"] == sum(terms))


def judged(found: Scan, seed: int) -> dict[str, Any] | None:
    """Judge against executed truth on the rollouts of training, where gaming would show."""
    table = found.confusion
    if table is None:
        return None
    yes, judge_only, truth_only, no = (int(count) for count in table)
    value = kappa(table)
    return {
        "n": yes + judge_only + truth_only + no,
        "both_yes": yes, "judge_only": judge_only, "truth_only": truth_only, "both_no": no,
        "kappa": value,
        "ci95": list(kappa_interval(found.judged_array, seed=seed)),
        "false_positive_rate": judge_only / (judge_only + no) if judge_only + no else None,
    }


def _checks(run: Run, found: Scan, ledger: Mapping[str, Any]) -> dict[str, bool | None]:
    """What a reader would otherwise have to believe. True, false, or None: cannot be told."""
    logged = {
        int(row["step"]): int(row["rollouts/count"]) for row in run.rows if "rollouts/count" in row
    }
    steps = [int(row["step"]) for row in run.rows]
    consecutive = all(b - a == 1 for a, b in pairwise(steps))
    return {
        "ledger_conserved": ledger["conserved"],
        "rollouts_recorded": found.per_step == logged if logged else None,
        "consumed_recorded": _consumed(run, found),
        "no_lease_twice": found.repeated == 0 if found.rollouts else None,
        "steps_consecutive": consecutive if steps else None,
        "metrics_finite": _all_finite(run) if steps else None,
        "eval_before_recomputed": _recomputed(run.facts["eval_before"], run.before),
        "eval_after_recomputed": _recomputed(run.facts["eval_after"], run.after),
    }


def _consumed(run: Run, found: Scan) -> bool | None:
    """Does the ledger's count of consumed rollouts equal what lies on disk?"""
    consumed = run.facts["ledger"].get("consumed")
    return None if consumed is None else bool(found.trained == consumed)


def _all_finite(run: Run) -> bool:
    return all(math.isfinite(value) for row in run.rows for value in row.values())


def _recomputed(fact: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool | None:
    """Does `exact` follow from the recorded answers, over as many tasks as were claimed?"""
    claimed, count = fact.get("exact"), fact.get("n")
    if claimed is None or count is None or not rows:
        return None
    exact = sum(is_exact(row) for row in rows) / count if count else 0.0
    return bool(len(rows) == count and abs(exact - claimed) < _SAME)
