"""Kill random processes of real runs at random moments, then ask the files what was lost.

Every run is the real command with its real processes. While it trains, a victim and a harm are
drawn at random, again and again after random pauses; a front end that was killed is started again
with `resume=auto`. When a run has ended by itself, `rltrain audit` says from disk alone whether
each rollout was consumed once. Nothing here reads the state of the processes it kills.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rltrain.bench import results
from rltrain.bench.victims import FRONT, HARM, Victim, orphans, victims
from rltrain.errors import RltrainError

SMALL = (
    "experiment=segments_cpu", "model.warmup.steps=200", "model.warmup.examples=1000",
    "model.warmup.noise=0", "environment.args.train_clauses=[1,0,0]",
    "rewards.judge.witness=false", "eval.tasks=16", "rollout.groups_per_step=4",
    "rollout.group_size=4", "rollout.workers=2", "rollout.concurrency=4",
    "track.wandb=disabled", "precision=fp32", "train.checkpoint_every=5",
    "supervise.stall_s=10", "supervise.max_restarts=1000",
)  # fmt: skip
"""A run of many quick steps: what is tested is the machinery, not learning."""
POLL_S = 0.1
MEANING = (
    "Odd runs are asynchronous (lag 1). A harm may strike a run that has not recovered from the "
    "one before, when little but the front end is alive; it is therefore the most frequent victim. "
    "Steps after the last checkpoint (one every 5) are done again, on the same rollouts."
)
CHANCES = {"kill": 6, "term": 2, "stop": 2, "damage": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much harm, and its bounds in time."""

    runs: int
    harms: int
    """In all; each run gets its share, as long as it lives to see it."""
    steps: int
    seed: int
    pause_s: tuple[float, float]
    """Shortest and longest pause between two harms."""
    timeout_s: float
    """A run that has not ended by then counts as failed and is killed."""


@dataclass(slots=True, kw_only=True)
class Story:
    """What was done to one run, and how it ended."""

    harms: list[dict[str, Any]] = field(default_factory=list)
    starts: int = 0
    """How often the front end was started."""
    wall_s: float = 0.0
    exit: int | None = None
    error: str = ""
    orphans: list[str] = field(default_factory=list)
    audit: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    recover_s: list[float] = field(default_factory=list)
    """From each harm to the next step that the run's metrics have."""


@results.command
def main(plan: Plan, overrides: Sequence[str], work: Path, out: Path) -> None:
    """Harm `plan.runs` runs under `work`; write and print the table.

    Raises `RltrainError` if a rollout was lost or consumed twice, a run did not end, a process was
    left behind or an audit found anything."""
    where = results.machine()
    dice = random.Random(plan.seed)
    stories = []
    for number in range(plan.runs):
        share = plan.harms // plan.runs + (number < plan.harms % plan.runs)
        lag = number % 2
        every = [*SMALL, f"max_steps={plan.steps}", f"rollout.max_lag={lag}", *overrides]
        story = one_run(plan, share, dice, work, [*every, f"name=chaos-{number}", f"seed={number}"])
        stories.append(story)
        print(f"run {number}: {len(story.harms)} harms, exit {story.exit}, {story.wall_s:.0f} s",
              file=sys.stderr)  # fmt: skip
        facts = {"machine": where, "plan": asdict(plan), **summary(plan, stories)}
        facts["runs"] = [asdict(each) for each in stories]
        results.keep(out, "chaos", facts, text(facts))
    if facts["problems"]:
        raise RltrainError(f"{len(facts['problems'])} problems, the first: {facts['problems'][0]}")


def one_run(
    plan: Plan, harms: int, dice: random.Random, work: Path, overrides: Sequence[str]
) -> Story:
    """Start a run, harm it `harms` times, let it end, and audit it."""
    name = next(x.removeprefix("name=") for x in overrides if x.startswith("name="))
    run = work / "runs" / name
    story = Story()
    started = time.monotonic()
    front = _start(work, overrides, story)
    try:
        while front.poll() is None or _revive(story):
            if time.monotonic() - started > plan.timeout_s:
                raise TimeoutError(f"not ended after {plan.timeout_s:.0f} s")
            if front.poll() is not None:
                front = _start(work, overrides, story)
            if len(story.harms) < harms and _training(run, plan.steps):
                _harm(plan, dice, front, run, story)
            time.sleep(POLL_S)
    except TimeoutError as error:
        story.error = str(error)
    finally:
        if front.poll() is None:
            front.kill()
        story.exit = front.wait()
    time.sleep(2.0)  # the kernel needs a moment to end the children of a killed front end
    story.wall_s = time.monotonic() - started
    story.orphans = orphans(work)
    times = [float(row["time"]) for row in _rows(run)]
    story.steps = len(times)
    for harm in story.harms:
        after = [t - harm["at"] for t in times if t > harm["at"]]
        story.recover_s += [min(after)] if after else []
    story.audit = _audit(work, run)
    if story.exit and not story.error:
        story.error = _last_line(work / f"{name}.log")
    return story


def _start(work: Path, overrides: Sequence[str], story: Story) -> subprocess.Popen[bytes]:
    story.starts += 1
    name = next(x.removeprefix("name=") for x in overrides if x.startswith("name="))
    with (work / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "rltrain", "train", *overrides, "resume=auto"],
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _revive(story: Story) -> bool:
    """Whether the front end ended because of us, and so is to be started again."""
    last = story.harms[-1] if story.harms else {}
    if last.get("role") == FRONT and not last.get("revived"):
        last["revived"] = True
        return True
    return False


def _harm(
    plan: Plan, dice: random.Random, front: subprocess.Popen[bytes], run: Path, story: Story
) -> None:
    """Pause, draw, strike, and wait until the run makes steps again."""
    time.sleep(dice.uniform(*plan.pause_s))
    kind = dice.choices(list(CHANCES), list(CHANCES.values()))[0]
    alive = [v for v in victims(front.pid) if kind != "damage" or v.role == "learner"]
    if not alive or front.poll() is not None:
        return
    victim: Victim = dice.choice(alive)
    if kind == "stop" and victim.role == FRONT:
        kind = "kill"  # a stopped front end stops nothing else
    step = len(_rows(run))
    if not HARM[kind](victim, run):
        return
    if victim.role == FRONT:
        front.wait(30)
    harm: dict[str, Any] = {"kind": kind, "role": victim.role, "step": step, "at": time.time()}
    story.harms.append(harm)


def _rows(run: Path) -> list[dict[str, Any]]:
    rows = []
    try:
        for line in (run / "metrics.jsonl").read_text().splitlines():
            rows.append(json.loads(line))
    except (OSError, ValueError):
        pass  # not there yet, or being written
    return rows


def _training(run: Path, steps: int) -> bool:
    """Whether the run is in its loop: after the first step, and a few before the last."""
    return 1 <= len(_rows(run)) <= steps - 3


def _audit(work: Path, run: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "rltrain", "audit", str(run)],
        cwd=work, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"problems": [f"rltrain audit ended with {done.returncode}: {done.stderr[-300:]}"]}
    return found


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def summary(plan: Plan, stories: Sequence[Story]) -> dict[str, Any]:
    """Totals over runs, and every problem as a sentence."""
    problems = []
    for number, story in enumerate(stories):
        found = list(story.audit.get("problems", ["no audit"]))
        found += [story.error] if story.error else []
        found += [f"left behind: {command}" for command in story.orphans]
        if story.steps != plan.steps:
            found.append(f"{story.steps} steps instead of {plan.steps}")
        problems += [f"run {number}: {problem}" for problem in found]
    dropped: Counter[str] = Counter()
    for story in stories:
        dropped.update(story.audit.get("dropped", {}))
    recover_s = [seconds for story in stories for seconds in story.recover_s] or [0.0]
    harms = Counter(f"{h['kind']} {h['role']}" for s in stories for h in s.harms)
    return {
        "harms": dict(sorted(harms.items())),
        "issued": sum(s.audit.get("issued", 0) for s in stories),
        "consumed": sum(s.audit.get("consumed", 0) for s in stories),
        "dropped": dict(sorted(dropped.items())),
        "lost": sum(n for reason, n in dropped.items() if reason.startswith("fault:")),
        "recover_s": {"median": statistics.median(recover_s), "longest": max(recover_s)},
        "problems": problems,
    }


def text(facts: Mapping[str, Any]) -> str:
    """The tables, in Markdown."""
    rows = [
        {
            "run": number,
            "harms": len(story["harms"]),
            "front end started": story["starts"],
            "steps": story["steps"],
            "issued": story["audit"].get("issued"),
            "consumed": story["audit"].get("consumed"),
            "dropped by the system": sum(
                count
                for reason, count in story["audit"].get("dropped", {}).items()
                if reason.startswith("fault:")
            ),
            "consumed twice": sum(n or 0 for n in story["audit"].get("duplicates", {}).values()),
            "leased again": (story["audit"].get("re_leased") or {}).get("times"),
            "seconds": round(story["wall_s"]),
            "problems": len([p for p in facts["problems"] if p.startswith(f"run {number}:")]),
        }
        for number, story in enumerate(facts["runs"])
    ]
    harms = [{"harm": name, "times": count} for name, count in facts["harms"].items()]
    total = sum(facts["harms"].values())
    verdict = (
        f"{total} harms in {len(rows)} runs (seed {facts['plan']['seed']}): {facts['lost']} "
        f"rollouts lost to the system, {len(facts['problems'])} problems found. From a harm to the "
        f"next step of the run: median {facts['recover_s']['median']:.1f} s, longest "
        f"{facts['recover_s']['longest']:.1f} s. {MEANING}"
    )
    found = "\n".join(f"* {problem}" for problem in facts["problems"])
    tables = [results.table(each) for each in (rows, harms) if each]
    parts = ["# Random kills", verdict, *tables, found]
    return "\n\n".join(part for part in parts if part)
