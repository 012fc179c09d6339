"""The flagship experiment over several seeds: is the gain there every time, and how large is it?

The embedded policy and judge are built once and shared; a seed decides the order of tasks and what
is sampled. The control spends more steps on supervision: a warm-up twice as long on the same
demonstrations, and no reinforcement learning.

Two intervals answer two questions: the t interval over seeds, how much another seed would differ;
the bootstrap over tasks (each task's mean over seeds), how much other tasks would.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rltrain.bench import results
from rltrain.bench.runs import FLAGSHIP, Measured, read, run
from rltrain.config.compose import load_config
from rltrain.config.model import TinyModelConfig
from rltrain.report import paired_bootstrap
from rltrain.report.data import load
from rltrain.report.evals import is_exact

METRICS = ("exact", "valid", "hack_rate")


@results.command
def main(seeds: Sequence[int], overrides: Sequence[str], out: Path, reuse: bool) -> None:
    """Run (or with `reuse` read, where it exists) `seeds-<seed>` for every seed; write the result
    after each, so that an interrupted series keeps what it has."""
    where = results.machine()
    done: dict[int, Measured] = {}
    facts: dict[str, Any] = {"machine": where, "overrides": list(overrides), "control": None}
    for seed in seeds:
        every = [FLAGSHIP, f"name=seeds-{seed}", f"seed={seed}", "overwrite=true", *overrides]
        done[seed] = _measure(every, reuse)
        facts |= collect(done)
        results.keep(out, "seeds", facts, text(facts))
    facts["control"] = _control(overrides, reuse)
    results.keep(out, "seeds", facts, text(facts))


def _measure(overrides: Sequence[str], reuse: bool) -> Measured:
    config = load_config(overrides)
    folder = Path(config.runs_dir) / config.name
    return read(folder) if reuse and folder.is_dir() else run(overrides)


def _control(overrides: Sequence[str], reuse: bool) -> dict[str, Any]:
    """The policy of a warm-up twice as long, as a run of a single step sees it before that step."""
    base = load_config([FLAGSHIP, "name=control", *overrides]).model
    assert isinstance(base, TinyModelConfig), "the control needs model=tiny"
    steps = 2 * base.warmup.steps
    every = [FLAGSHIP, "name=seeds-control", "overwrite=true", *overrides, "max_steps=1",
             f"model.warmup.steps={steps}", "rewards.judge.witness=false"]
    before = _measure(every, reuse).summary["eval"]["before"]
    return {"warmup_steps": steps, **{key: before[key] for key in (*METRICS, "n", "ci95")}}


def collect(done: Mapping[int, Measured]) -> dict[str, Any]:
    """Per seed what its summary says, then what they say together."""
    each = [_one(seed, measured) for seed, measured in done.items()]
    gains = [row["delta"]["mean"] for row in each]
    pooled, interval = paired_bootstrap(*_task_means(list(done.values())), seed=0)
    mean = {
        f"{key}_{end}": statistics.fmean(row[end][key] for row in each)
        for key in METRICS
        for end in ("before", "after")
    }
    return {
        "seeds": each,
        "mean": mean,
        "delta": {
            "mean": statistics.fmean(gains),
            "ci95_over_seeds": results.t_interval(gains),
            "seeds": len(gains),
        },
        "delta_over_tasks": {"mean": pooled, "ci95": interval},
    }


def _one(seed: int, measured: Measured) -> dict[str, Any]:
    summary = measured.summary
    evals = summary["eval"]
    return {
        "seed": seed,
        "run": measured.path.name,
        "steps": summary["steps"]["done"],
        **{
            end: {key: evals[end][key] for key in (*METRICS, "n", "ci95")}
            for end in ("before", "after")
        },
        "delta": evals["delta"],
        "hack_delta": evals["hack_delta"],
        "judge_kappa": summary["judge"]["kappa"],
        "alarms": summary["alarms"],
        "checks": summary["checks"],
        **{key: summary["timing"].get(key) for key in ("build_s", "train_s", "wall_s")},
    }


def _task_means(runs: Sequence[Measured]) -> tuple[list[float], list[float]]:
    """Before and after, one value per task that every seed measured: its mean over seeds."""
    values: dict[str, dict[str, list[float]]] = {
        end: defaultdict(list) for end in ("before", "after")
    }
    for measured in runs:
        loaded = load(measured.path)
        for end, rows in (("before", loaded.before), ("after", loaded.after)):
            for row in rows:
                if row["truth"] is not None:
                    values[end][row["task_id"]].append(float(is_exact(row)))
    full = [
        task
        for task, seen in values["before"].items()
        if len(seen) == len(runs) == len(values["after"].get(task, ()))
    ]
    before, after = ([statistics.fmean(values[end][task]) for task in full] for end in values)
    return before, after


def text(facts: Mapping[str, Any]) -> str:
    """The table and the two intervals, in Markdown."""
    rows = [
        {
            "seed": row["seed"],
            "exact before": row["before"]["exact"],
            "exact after": row["after"]["exact"],
            "change": row["delta"]["mean"],
            "95 % interval": row["delta"]["ci95"],
            "valid": f"{row['before']['valid']:.3f} → {row['after']['valid']:.3f}",
            "hacks": f"{row['before']['hack_rate']:.3f} → {row['after']['hack_rate']:.3f}",
            "judge κ": row["judge_kappa"],
            "train, s": round(row["train_s"]),
            "wall, s": round(row["wall_s"]),
        }
        for row in facts["seeds"]
    ]
    delta, tasks, control = facts["delta"], facts["delta_over_tasks"], facts["control"]
    spread = delta["ci95_over_seeds"]
    low, high = (100 * bound for bound in tasks["ci95"])
    over_seeds = (
        f"[{100 * spread[0]:+.1f}, {100 * spread[1]:+.1f}]" if spread else "needs two seeds"
    )
    lines = [
        f"# Seeds: {' '.join([FLAGSHIP, *facts['overrides']])}",
        "",
        results.table(rows),
        "",
        "Exact match on held-out tasks, greedy, by executed truth "
        f"(n = {facts['seeds'][0]['after']['n']} tasks).",
        f"Mean change {100 * delta['mean']:+.1f} points over {delta['seeds']} seeds; 95 % interval "
        f"over seeds (t): {over_seeds}; over tasks (paired bootstrap of each task's mean over "
        f"seeds): [{low:+.1f}, {high:+.1f}].",
    ]
    if control:
        lines += [
            "",
            f"Control: {control['warmup_steps']} steps of supervised warm-up on the same "
            f"demonstrations and no reinforcement learning: exact {control['exact']:.3f} (95 % "
            f"interval [{control['ci95'][0]:.3f}, {control['ci95'][1]:.3f}]), "
            f"valid {control['valid']:.3f}, hacks {control['hack_rate']:.3f}.",
        ]
    return "\n".join(lines)
