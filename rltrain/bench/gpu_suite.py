"""Everything that needs a GPU, in one command: tests, kernels, the learner, precision, weights.

Each part has a time budget and is guarded: what one part raises, or what it has no time for, is
written into its section, and the others still run. Files are written again after every part, so
that a run which is cut off leaves what it had. torch, transformers and (for the learner's parts)
pydantic must be there; vLLM, TRL and Liger take part where they can be imported.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rltrain.bench.gpu_timing import Stage, facts, table

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL = ROOT / "docs" / "benchmarks"
NAME = "gpu"
PARTS: dict[str, tuple[str, str, float]] = {
    "tests": ("gpu_suite:tests", "Tests", 100),
    "heads": ("gpu_heads:heads", "Log-probabilities of an output head", 180),
    "epilogue": ("gpu_epilogue:epilogue", "Policy loss", 15),
    "learner": ("gpu_learner:learner", "The learner's step, 0.6 B parameters", 110),
    "mismatch": ("gpu_mismatch:mismatch", "FP16 against BF16", 90),
    "push": ("gpu_learner:push", "Weights leaving the learner", 25),
}
"""name -> function, title, budget in seconds; 520 in all."""


class OutOfTime(BaseException):
    """A part used up its budget. No `Exception`: what guards single measurements lets it pass."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises `OutOfTime` within the block; only in the main thread, only between operations."""

    def ring(*_: Any) -> None:
        raise OutOfTime(f"no time left after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)  # somebody else's, who may wait a bit longer


def tests(stage: Stage) -> dict[str, Any]:
    """The kernels' tests in a process of their own; at toy size one file of them."""
    which = "tests/kernels/test_policy_loss.py" if stage.tiny else "tests/kernels"
    # Quiet by config. Where little is installed, what cannot be imported leaves out its own file.
    command = [sys.executable, "-m", "pytest", "--durations=3", "--noconftest", which]
    command += ["--continue-on-collection-errors", "--ignore=tests/kernels/test_interpreter.py"]
    if stage.tiny:
        command += ["-k", "every_branch"]
    # The project need not be installed where GPUs are.
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), *filter(None, sys.path)])
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True,
        text=True, timeout=stage.size(95, 380),
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)",
                                                     lines[-1] if lines else "")}  # fmt: skip
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if not counts:
        failed.append((done.stderr.strip() or "no output").splitlines()[-1])
    return {"rows": [{"exit code": done.returncode, **counts}], "failed": failed}


def main(out: Path, parts: Sequence[str], *, dry_run: bool, device: str = "auto") -> int:
    """Run the parts and write `out/gpu.{json,md}`. Returns the number of parts that failed.

    dry_run: toy sizes, on whatever device there is; refuses to write into docs/benchmarks.
    Without it a GPU is needed."""
    chosen = "cuda" if torch.cuda.is_available() and device != "cpu" else "cpu"
    if dry_run and out.resolve() == OFFICIAL:
        print(f"error: a dry run does not write into {OFFICIAL}; give --out", file=sys.stderr)
        return 2
    if not dry_run and chosen == "cpu":
        print("error: no NVIDIA GPU here; --dry-run tries every part at toy size", file=sys.stderr)
        return 2
    if unknown := set(parts) - set(PARTS):
        print(f"error: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}",
              file=sys.stderr)  # fmt: skip
        return 2
    stage = Stage(device=torch.device(chosen), tiny=dry_run)
    found: dict[str, Any] = {"dry_run": dry_run, "facts": facts(), "parts": {}}
    for name in parts or PARTS:
        found["parts"][name] = run_part(name, stage)
        write(out, found)
        print(f"{name}: {found['parts'][name].get('failed_as', 'done')}", flush=True)
    print(f"written: {out / NAME}.json, {out / NAME}.md")
    return sum("failed_as" in part for part in found["parts"].values())


def run_part(name: str, stage: Stage) -> dict[str, Any]:
    """What a part found; with `failed_as` if it did not end well."""
    where, _, budget = PARTS[name]
    budget = budget * stage.size(1, 4)  # a toy may run on a busy machine
    module, function = where.split(":")
    start = time.perf_counter()
    result: dict[str, Any] = {}
    try:
        # No measurement is begun in the last tenth, so that what was measured is not lost.
        stage = replace(stage, deadline=start + 0.9 * budget)
        with at_most(budget):
            # Imported here: what one part needs and is not installed is that part's failure.
            run: Callable[[Stage], dict[str, Any]] = getattr(
                importlib.import_module(f"rltrain.bench.{module}"), function
            )
            result = run(stage)
    except (Exception, OutOfTime) as error:
        result = {"failed_as": f"{type(error).__name__}: {error}"[:300]}
    if stage.device.type == "cuda":
        torch.cuda.empty_cache()
    return result | {"wall_s": round(time.perf_counter() - start, 1)}


def write(out: Path, found: Mapping[str, Any]) -> None:
    """Both files, as far as the suite has come."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{NAME}.json").write_text(json.dumps(found, indent=2) + "\n")
    (out / f"{NAME}.md").write_text(text(found))


def text(found: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    lines = [f"# On a GPU: {found['facts']['device']}"]
    if found["dry_run"]:
        lines.append("**A dry run at toy size. No number here means anything.**")
    lines.append(", ".join(f"{key} {value}" for key, value in found["facts"].items()))
    for name, part in found["parts"].items():
        lines.append(f"## {PARTS[name][1]}")
        if "failed_as" in part:
            lines.append(f"Failed: {part['failed_as']}")
        for key in ("rows", "tilings"):
            if part.get(key):
                lines.append(table(part[key]))
        lines += [f"* {line}" for line in part.get("failed", [])]
        lines.append(f"{part.get('note', '')} {part['wall_s']} s.".strip())
    return "\n\n".join(lines) + "\n"
