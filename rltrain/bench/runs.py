"""A whole training run as one measurement: the real command's processes, then its own records."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltrain.config.compose import load_config
from rltrain.errors import UserError
from rltrain.launch.training import train
from rltrain.report import summarize
from rltrain.rundir import RunDir
from rltrain.track import read_metrics

FLAGSHIP = "experiment=segments_cpu"
WARMUP = 2
"""Steps at the start whose time is not typical: first calls, and an empty buffer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A finished run."""

    path: Path
    summary: dict[str, Any]
    step_s: tuple[float, ...]
    """Wall-clock seconds of each step of the loop."""
    tokens: tuple[int, ...]
    """Tokens sampled for each step."""

    @property
    def loop_s(self) -> float:
        """The loop alone, without the start of its processes."""
        return sum(self.step_s)

    def steady(self, lag: int) -> tuple[float, ...]:
        """Step times without the first steps, and without the last ones, for which an
        asynchronous run has nothing left to sample and looks faster than it is."""
        end = len(self.step_s) - (lag + 1 if lag else 0)
        return self.step_s[min(WARMUP, len(self.step_s) - 1) : max(end, WARMUP + 1)]

    def step_median(self, lag: int) -> float:
        return statistics.median(self.steady(lag))


def run(overrides: Sequence[str]) -> Measured:
    """Train from start to end. Raises `RltrainError`."""
    print(f"rltrain train {' '.join(overrides)}", file=sys.stderr)
    return read(train(load_config(overrides)).path)


def read(path: Path) -> Measured:
    """A run that ended before. Raises `UserError` if there is none or if it was cut short."""
    RunDir(path).load_config()
    summary = summarize(path)
    done, planned = summary["steps"]["done"], summary["steps"]["planned"]
    if done != planned or summary["eval"]["after"]["exact"] is None:
        raise UserError(f"{path} is not a finished run ({done} of {planned} steps)")
    rows = read_metrics(RunDir(path).metrics).rows
    return Measured(
        path=path,
        summary=summary,
        step_s=tuple(float(row["time/step_s"]) for row in rows),
        tokens=tuple(int(row["tokens/generated"]) for row in rows),
    )
