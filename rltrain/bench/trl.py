"""Our step against that of TRL's `GRPOTrainer`: same model, prompts, reward, group size, tokens
and threads, one after the other on the same machine.

Ours are the real processes of a run (vLLM server, worker, learner, weights pushed and probed every
step). TRL runs alone in its own process, generating with transformers. Ours runs synchronously with
one thread and with both for whichever side works, and asynchronously likewise.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rltrain.bench import results
from rltrain.bench.endless import save_endless
from rltrain.bench.environment import REWARD
from rltrain.bench.runs import WARMUP, run
from rltrain.build import environment
from rltrain.config.compose import load_config
from rltrain.config.rollout import EnvironmentConfig
from rltrain.errors import RltrainError

THREADS = 2
OURS = ((0, 1), (0, THREADS), (1, 1), (1, THREADS))
"""`rollout.max_lag`, and the threads of engine and learner each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What both sides do in one step, and how often."""

    steps: int
    groups: int
    group_size: int
    tokens: int
    precision: str
    """`fp32` or `bf16`, the same on both sides; parameters and optimizer are fp32 in either."""

    @property
    def tokens_per_step(self) -> int:
        return self.groups * self.group_size * self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Competitor:
    """What TRL is given besides: the fastest of these is reported beside ours."""

    attention: str
    micro_batch: int
    """Sequences of one forward pass."""
    threads: int


@results.command
def main(
    work: Work,
    competitors: Sequence[Competitor],
    overrides: Sequence[str],
    out: Path,
) -> None:
    """Measure TRL, ours synchronous and ours asynchronous; write and print the result.

    Raises `RltrainError` if a step of any side did not sample exactly the budget."""
    where = results.machine()
    with tempfile.TemporaryDirectory(prefix="rltrain-bench-") as scratch:
        model = Path(scratch) / "model"
        given = load_config(["name=bench", f"max_steps={work.steps}", *overrides]).environment
        parameters = save_endless(model, environment(given))
        rows = [_trl(work, each, model, given) for each in competitors]
        rows += [_ours(work, way, model, overrides, given.entry) for way in OURS]
    for row in rows:
        if set(row["tokens_per_step"]) != {work.tokens_per_step}:
            raise RltrainError(
                f"{row['name']} sampled {row['tokens_per_step']} tokens per step instead of "
                f"{work.tokens_per_step}; the comparison would be void"
            )
    best = min(row["median_s"] for row in rows if row["name"].startswith("TRL"))
    for row in rows:
        row["speed_up"] = best / row["median_s"]
    facts = {
        "machine": where,
        "work": asdict(work),
        "threads": THREADS,
        "parameters": parameters,
        "overrides": list(overrides),
        "results": rows,
    }
    results.keep(out, f"trl_{work.precision}", facts, text(facts))


def _trl(
    work: Work, competitor: Competitor, model: Path, given: EnvironmentConfig
) -> dict[str, Any]:
    """Run `rltrain.bench.trl_side` in a process of its own."""
    name = (
        f"TRL, {competitor.attention}, {competitor.micro_batch} sequences per pass, "
        f"{competitor.threads} thread(s)"
    )
    print(name, file=sys.stderr)
    report = model.parent / "trl.json"
    spec = {
        **asdict(work),
        **asdict(competitor),
        "environment": given.model_dump(),
        "model": str(model),
        "report": str(report),
    }
    env = {"OMP_NUM_THREADS": str(competitor.threads), "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run(
        [sys.executable, "-m", "rltrain.bench.trl_side", json.dumps(spec)],
        env={**os.environ, **env},
        stdout=sys.stderr,
        check=True,
    )
    facts = json.loads(report.read_text())
    return _row(name, facts["step_s"], facts["step_s"][WARMUP:], facts["tokens"])


def _ours(
    work: Work, way: tuple[int, int], model: Path, overrides: Sequence[str], entry: str
) -> dict[str, Any]:
    lag, threads = way
    measured = run(
        [
            f"name=lag-{lag}-threads-{threads}",
            f"runs_dir={model.parent}",
            f"max_steps={work.steps}",
            "model=local",
            f"model.name={model}",
            "model.max_length=256",
            "environment.entry=rltrain.bench.environment:build",
            f"+environment.args.inner={entry}",
            "rewards=executed",
            f"rewards.stages=[{{check: {REWARD}}}]",
            "train.micro_batch_tokens=4096",
            f"rollout.max_lag={lag}",
            f"rollout.group_size={work.group_size}",
            f"rollout.groups_per_step={work.groups}",
            f"rollout.max_new_tokens={work.tokens}",
            f"engine.threads={threads}",
            f"train.threads={threads}",
            f"precision={work.precision}",
            "eval.tasks=1",
            "track.wandb=disabled",
            *overrides,
        ]
    )
    name = f"rltrain, {'asynchronous' if lag else 'synchronous'}, {threads} thread(s) each"
    return _row(name, measured.step_s, measured.steady(lag), measured.tokens)


def _row(
    name: str, step_s: Sequence[float], steady: Sequence[float], tokens: Sequence[int]
) -> dict[str, Any]:
    return {
        "name": name,
        "median_s": statistics.median(steady),
        "fastest_s": min(steady),
        "slowest_s": max(steady),
        "steps_timed": len(steady),
        "step_s": list(step_s),
        "tokens_per_step": list(tokens),
    }


def text(facts: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    work = facts["work"]
    rows = [
        {
            "": row["name"],
            "median step, s": row["median_s"],
            "range, s": f"{row['fastest_s']:.2f} – {row['slowest_s']:.2f}",
            "steps": row["steps_timed"],
            "tokens per step": row["tokens_per_step"][0],
            "speed-up over the fastest TRL": row["speed_up"],
        }
        for row in facts["results"]
    ]
    caption = (
        f"{facts['parameters'] / 1e6:.1f} M parameters, {work['precision']}, "
        f"{work['groups']} prompts x {work['group_size']} answers x {work['tokens']} tokens, "
        f"at most {facts['threads']} CPU threads on either side, beta = 0, same reward function. "
        "A step is sampling, reward, "
        "update and (ours) the weights' way into the engine with its check; the first two are left "
        "out, and of the asynchronous run the last two, which have nothing to sample beside them."
    )
    title = "# One step: rltrain against TRL's GRPOTrainer"
    return "\n\n".join([title, results.table(rows), caption])
