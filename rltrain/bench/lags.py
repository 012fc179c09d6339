"""Asynchronous against synchronous: the same config and steps, only `rollout.max_lag` differs.

On a machine with two cores a synchronous run leaves one idle at any time, so it is also measured
with both threads for whichever side works (`wide`): the comparison that an asynchronous run has to
win. Runs take turns, and every other repeat runs them in reverse, so that drift favours neither.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltrain.bench import results
from rltrain.bench.runs import FLAGSHIP, Measured, run

PARTS = ("generate_s", "wait_s", "learn_s", "sync_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to run the same steps."""

    name: str
    lag: int
    overrides: tuple[str, ...] = ()


def variants(lags: Sequence[int], wide: int) -> list[Variant]:
    """One per lag, and where `wide` > 1 a synchronous one with that many threads on either side."""
    made = [
        Variant(
            name=f"lag {lag}" if lag else "synchronous",
            lag=lag,
            overrides=(f"rollout.max_lag={lag}",),
        )
        for lag in lags
    ]
    if wide > 1:
        threads = (f"engine.threads={wide}", f"train.threads={wide}", "rollout.max_lag=0")
        made.insert(0, Variant(name=f"synchronous, {wide} threads", lag=0, overrides=threads))
    return made


@results.command
def main(lags: Sequence[int], repeats: int, wide: int, overrides: Sequence[str], out: Path) -> None:
    """Run everything, and write the result after each round."""
    where = results.machine()
    found = variants(lags, wide)
    rounds: list[dict[str, Any]] = []
    for repeat in range(repeats):
        for order, variant in enumerate(found if repeat % 2 == 0 else found[::-1]):
            name = f"async-{variant.name.replace(',', '').replace(' ', '-')}-{repeat}"
            fixed = [FLAGSHIP, f"name={name}", "overwrite=true", "track.wandb=disabled"]
            measured = run([*fixed, *overrides, *variant.overrides])
            rounds.append({"repeat": repeat, "order": order, **_one(variant, measured)})
        facts = {
            "machine": where,
            "overrides": list(overrides),
            "runs": rounds,
            "variants": collect(found, rounds),
        }
        results.keep(out, "async_vs_sync", facts, text(facts))


def _one(variant: Variant, measured: Measured) -> dict[str, Any]:
    summary = measured.summary
    return {
        "variant": variant.name,
        "run": measured.path.name,
        "steps": len(measured.step_s),
        "train_s": summary["timing"]["train_s"],
        "loop_s": measured.loop_s,
        "step_median_s": measured.step_median(variant.lag),
        "steps_timed": len(measured.steady(variant.lag)),
        "tokens": sum(measured.tokens),
        "exact_before": summary["eval"]["before"]["exact"],
        "exact_after": summary["eval"]["after"]["exact"],
        "n": summary["eval"]["after"]["n"],
        "staleness": summary["staleness"],
        **{key: summary["timing"].get(key) for key in PARTS},
    }


def collect(found: Sequence[Variant], rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per variant the medians over repeats, and its speed-up over the fastest synchronous one."""
    rows = []
    for variant in found:
        mine = [row for row in rounds if row["variant"] == variant.name]
        middle = {
            key: statistics.median(row[key] for row in mine)
            for key in ("train_s", "loop_s", "step_median_s")
        }
        rows.append(
            {
                "variant": variant.name,
                "lag": variant.lag,
                "repeats": len(mine),
                **middle,
                "exact_after": statistics.fmean(row["exact_after"] for row in mine),
                "staleness_mean": statistics.fmean(row["staleness"]["mean"] for row in mine),
                "staleness_max": max(row["staleness"]["max"] for row in mine),
            }
        )
    for key in ("train_s", "loop_s", "step_median_s"):
        synchronous = [row[key] for row in rows if row["lag"] == 0]
        for row in rows:
            row[f"{key}_ratio"] = min(synchronous) / row[key] if synchronous else None
    return rows


def text(facts: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    rows = [
        {
            "": row["variant"],
            "train, s": row["train_s"],
            "loop, s": row["loop_s"],
            "median step, s": row["step_median_s"],
            "speed-up (train)": row["train_s_ratio"],
            "speed-up (step)": row["step_median_s_ratio"],
            "exact after": row["exact_after"],
            "staleness mean / max": f"{row['staleness_mean']:.2f} / {row['staleness_max']:.0f}",
        }
        for row in facts["variants"]
    ]
    first = facts["runs"][0]
    caption = (
        f"{first['steps']} steps each, medians over {facts['variants'][0]['repeats']} repeats, in "
        "alternating order. `train` is everything from the start of the learner to its end, `loop` "
        "the steps alone. Speed-ups are over the fastest synchronous variant. Exact match on "
        f"{first['n']} held-out tasks (before: {first['exact_before']:.3f})."
    )
    title = f"# Asynchronous against synchronous: {' '.join([FLAGSHIP, *facts['overrides']])}"
    return "\n\n".join([title, results.table(rows), caption])
