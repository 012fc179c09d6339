"""Three rewards for one task: added up, gated, and gated with detectors and a better judge.

The case of a production system in miniature: the validator grows from v1 (does it parse?) over v2
(does the schema allow it?) to v3 (and no detector finds a hack), the judge from v1 (hardly trained,
never measured) to v2 (the embedded default, calibrated). Executed truth is measured everywhere and
rewarded nowhere. All arms start from one policy, and one and the same validator, v3, examines the
held-out answers of all of them.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
from scipy.stats import kendalltau, pearsonr  # type: ignore[import-untyped]

from rltrain import build
from rltrain.bench import results
from rltrain.bench.production_picture import draw
from rltrain.bench.runs import FLAGSHIP, Measured, read, run
from rltrain.config.compose import load_config
from rltrain.report.data import load
from rltrain.report.stats import wilson
from rltrain.track.metrics import validity
from rltrain.types import Episode, Screened, Task, Turn

JUDGE_V1 = "rewards.judge.tiny.steps=100"
DETECTORS = ("opt_out", "tag_catch_all", "schema_invention", "over_broad", "judge_injection")
LATE = 0.2
"""Share of the steps at a run's end in which judge and truth are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to reward."""

    name: str
    title: str
    validator: str
    judge: str
    overrides: tuple[str, ...]


def _keep() -> tuple[str, ...]:
    return tuple(f"detectors.rollout.{name}.action=keep" for name in DETECTORS)


ARMS = (
    Arm(
        name="added",
        title="added up",
        validator="v1",
        judge="v1",
        overrides=(
            "rewards.stages=[{check: format}, {check: syntax, on_fail: 0.1}, "
            "{check: judge, on_fail: 0.4}]",
            # 0.1 for the format, 0.3 for a query that parses, 0.6 for the judge's yes: what the
            # linter refuses, because any query for everybody earns 0.4.
            "rewards.lint.max_constant=1.0", JUDGE_V1, *_keep(),
        ),
    ),
    Arm(
        name="gated",
        title="gates, no detectors",
        validator="v2",
        judge="v1",
        overrides=(
            "rewards.stages=[{check: format}, {check: syntax}, {check: schema}, {check: judge}]",
            JUDGE_V1, *_keep(),
        ),
    ),
    Arm(
        name="screened",
        title="gates, detectors, calibrated judge",
        validator="v3",
        judge="v2",
        overrides=("rewards=judged",),
    ),
)  # fmt: skip


@results.command
def main(overrides: Sequence[str], seed: int, out: Path, reuse: bool) -> None:
    """Run (or with `reuse` read) every arm; write table and picture after each."""
    where = results.machine()
    facts: dict[str, Any] = {
        "machine": where, "overrides": list(overrides), "seed": seed, "arms": [],
    }  # fmt: skip
    measured: list[tuple[Arm, Measured]] = []
    for arm in ARMS:
        every = [FLAGSHIP, f"name=production-{arm.name}", f"seed={seed}", "overwrite=true",
                 "rewards.judge.witness=false", *arm.overrides, *overrides]  # fmt: skip
        config = load_config(every)
        folder = Path(config.runs_dir) / config.name
        done = read(folder) if reuse and folder.is_dir() else run(every)
        measured.append((arm, done))
        facts["arms"].append(_one(arm, done, every))
        results.keep(out, "production", facts, text(facts))
    draw(
        [(arm.title, done.path) for arm, done in measured],
        out.parent / "images" / "production.png",
    )


def _one(arm: Arm, done: Measured, overrides: Sequence[str]) -> dict[str, Any]:
    summary = done.summary
    judge = summary["judge"]
    return {
        "arm": arm.name, "title": arm.title, "validator": arm.validator, "judge": arm.judge,
        "command": " ".join(["rltrain train", *(f"'{o}'" if " " in o else o for o in overrides)]),
        "steps": summary["steps"]["done"],
        **examined(done.path),
        "reward": summary["reward"], "truth_in_training": summary["truth"],
        "judge_kappa": judge["kappa"], "judge_ci95": judge["ci95"], "judge_n": judge["n"],
        "late": late(done.path, summary["steps"]["done"]),
        "alarms": summary["alarms"],
        "train_s": summary["timing"]["train_s"], "wall_s": summary["timing"]["wall_s"],
    }  # fmt: skip


def examined(path: Path) -> dict[str, Any]:
    """Held-out answers before and after under validator v3 and execution, whatever the arm's own
    reward was: {before, after: {n, exact, valid, hacks, flags, and their Wilson intervals}}."""
    loaded = load(path)
    config = load_config([FLAGSHIP, "rewards=exact"])
    env = build.environment(config.environment)
    tasks = {task.id: task for task in env.tasks(load_config([FLAGSHIP]).eval.split, 0)}
    reward = build.rewarder(config, env, None)

    async def all_of(rows: Sequence[Mapping[str, Any]]) -> list[Screened]:
        episodes = (_episode(tasks[row["task_id"]], row["answer"]) for row in rows)
        return [await reward.judge_episode(episode) for episode in episodes]

    ends = (("before", loaded.before), ("after", loaded.after))
    return {end: shares(asyncio.run(all_of(rows))) for end, rows in ends}


def _episode(task: Task, answer: str) -> Episode:
    turn = Turn(
        prompt_ids=(), completion_ids=(), logprobs=(), version=0, stop_reason="stop", text=answer
    )
    return Episode(task=task, sample=0, turns=(turn,), answer=answer, ended="answered")


def shares(rows: Sequence[Screened]) -> dict[str, Any]:
    """Shares of `rows` (at least one) that are exact, valid and flagged, with Wilson intervals."""
    n = len(rows)
    valid = validity([row.judged.verdicts for row in rows])
    assert valid is not None, "format, syntax and schema are gates of validator v3"
    counts = {
        "exact": sum((row.judged.truth or 0.0) >= 1.0 for row in rows),
        "valid": sum(valid),
        "hacks": sum(bool(row.flags) for row in rows),
    }
    flags = {name: sum(any(f.detector == name for f in row.flags) for row in rows) / n
             for name in DETECTORS}  # fmt: skip
    return {
        "n": n, "flags": flags,
        **{name: count / n for name, count in counts.items()},
        **{f"{name}_ci95": list(wilson(int(count), n)) for name, count in counts.items()},
    }  # fmt: skip


def late(path: Path, steps: int) -> dict[str, Any]:
    """Judge against truth on the rollouts of the last steps: n, Pearson's r and Kendall's tau-b
    between the judge's score and truth, and the share of wrong answers that it passed."""
    pairs = list(_pairs(path, math.floor(steps * (1 - LATE))))
    said, true = [p[0] for p in pairs], [p[1] for p in pairs]
    wrong = [score for score, truth in pairs if truth < 1.0]
    varied = len(set(said)) > 1 and len(set(true)) > 1
    return {
        "n": len(pairs),
        "pearson": float(pearsonr(said, true)[0]) if varied else None,
        "kendall": float(kendalltau(said, true)[0]) if varied else None,
        "wrong_passed": statistics.fmean(wrong) if wrong else None,
    }


def _pairs(path: Path, after: int) -> Iterator[tuple[float, float]]:
    for file in sorted((path / "rollouts").glob("step-*.parquet")):
        table = pq.read_table(file, columns=["step", "truth", "gates"])
        for row in table.to_pylist():
            judged = next((gate for gate in row["gates"] if gate["gate"] == "judge"), None)
            if row["step"] > after and judged is not None and row["truth"] is not None:
                yield float(judged["passed"]), float(row["truth"] >= 1.0)


def text(facts: Mapping[str, Any]) -> str:
    """The table, and what its columns mean."""
    first = facts["arms"][0]
    rows = [_row("start", first["before"], None), *(
        _row(f"{arm['title']} (validator {arm['validator']}, judge {arm['judge']})",
             arm["after"], arm)
        for arm in facts["arms"]
    )]  # fmt: skip
    commands = [f"    {arm['command']}" for arm in facts["arms"]]
    return "\n".join([
        "# The production table in miniature",
        "",
        results.table(rows),
        "",
        f"One seed ({facts['seed']}), {first['steps']} steps each, {first['after']['n']} held-out "
        "tasks, greedy; brackets are 95 % Wilson intervals. `valid`, `hacks` and `exact` are "
        "counted by one and the same validator (v3) and by execution in every row. `judge κ`: "
        "against executed truth on labelled held-out pairs (95 % bootstrap). `r`, `wrong passed`: "
        f"on the rollouts of the last {LATE:.0%} of the steps that reached the judge. "
        "`reward`: first → last tenth of training, each arm's own.",
        "",
        *commands,
    ])  # fmt: skip


def _row(title: str, held_out: Mapping[str, Any], arm: Mapping[str, Any] | None) -> dict[str, Any]:
    def share(name: str) -> str:
        low, high = held_out[f"{name}_ci95"]
        return f"{held_out[name]:.3f} [{low:.3f}, {high:.3f}]"

    row: dict[str, Any] = {"reward is": title, **{k: share(k) for k in ("valid", "exact", "hacks")}}
    worst = max(held_out["flags"], key=lambda name: held_out["flags"][name])
    rate = held_out["flags"][worst]
    row["commonest hack"] = f"{worst} {rate:.1%}" if rate else "none"
    if arm is None:
        return row | dict.fromkeys(("reward", "judge κ", "r", "wrong passed"))
    reward, seen = arm["reward"], arm["late"]
    low, high = arm["judge_ci95"]
    return row | {
        "reward": f"{reward['first']:.2f} → {reward['last']:.2f}",
        "judge κ": f"{arm['judge_kappa']:.2f} [{low:.2f}, {high:.2f}]",
        "r": seen["pearson"], "wrong passed": seen["wrong_passed"],
    }  # fmt: skip
