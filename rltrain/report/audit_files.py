"""Rollout files, metrics and checkpoints, each looked at for what must hold whatever happened."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from rltrain.report.audit_ledger import Key
from rltrain.track.jsonl import read_jsonl
from rltrain.track.rollouts import read_table


@dataclass(slots=True, kw_only=True)
class StepFiles:
    """What rollouts/*.parquet hold."""

    steps: dict[int, set[Key]] = field(default_factory=dict)
    rows: int = 0
    within: int = 0
    """Rollouts that one file holds more than once."""
    across: int = 0
    """Groups that more than one file holds: trained on twice."""
    damaged: list[str] = field(default_factory=list)


def read_step_files(run_dir: Path) -> StepFiles:
    """Every step file. A damaged one is named in `damaged`."""
    found = StepFiles()
    seen: set[int] = set()
    for path in sorted((run_dir / "rollouts").glob("step-*.parquet")):
        try:
            table = read_table(path, ("step", "lease", "sample"))
        except (OSError, KeyError, pa.ArrowException) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            found.damaged.append(f"rollouts/{path.name} cannot be read: {line}")
            continue
        named = int(path.stem.removeprefix("step-"))
        if set(table["step"].to_pylist()) - {named}:
            found.damaged.append(f"rollouts/{path.name} holds rows of another step")
        keys = list(zip(table["lease"].to_pylist(), table["sample"].to_pylist(), strict=True))
        leases = {lease for lease, _ in keys}
        found.rows += len(keys)
        found.within += len(keys) - len(set(keys))
        found.across += len(leases & seen)
        seen |= leases
        found.steps[named] = set(keys)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What metrics.jsonl holds."""

    rows: int
    last: int
    """Greatest step; 0 without any."""
    missing: tuple[int, ...]
    repeated: tuple[int, ...]
    torn: int
    """Lines that a crash cut off."""


def read_logged(path: Path) -> Logged:
    """The steps of metrics.jsonl, as they stand in the file."""
    raw, torn = read_jsonl(path)
    numbers = [row.get("step") for row in raw]
    steps = [int(step) for step in numbers if isinstance(step, int | float) and step == step]
    counts = Counter(steps)
    last = max(steps, default=0)
    return Logged(
        rows=len(steps),
        last=last,
        missing=tuple(step for step in range(1, last + 1) if step not in counts),
        repeated=tuple(sorted(step for step, count in counts.items() if count > 1)),
        torn=torn + len(raw) - len(steps),
    )


def read_checkpoints(run_dir: Path, *, hashed: bool) -> list[dict[str, Any]]:
    """Each checkpoint: name, step, `whole`, and what is wrong with it.

    hashed: compare every file with its checksum; else only that every file is there."""
    folders = sorted((run_dir / "checkpoints").glob("step-*"))
    found = [(folder, _checkpoint(folder, hashed)) for folder in folders]
    # A run that goes on may have removed an old one while it was read.
    return [{"name": folder.name, **facts} for folder, facts in found if folder.exists()]


def _checkpoint(folder: Path, hashed: bool) -> dict[str, Any]:
    try:
        step = _verified(folder) if hashed else _present(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"step": None, "whole": False, "wrong": str(error)}
    if folder.name != f"step-{step:05d}":
        return {"step": step, "whole": False, "wrong": f"{folder.name} says it is of step {step}"}
    return {"step": step, "whole": True, "wrong": None}


def _verified(folder: Path) -> int:
    from rltrain.train.checkpoint import verify_checkpoint  # brings torch

    return verify_checkpoint(folder)


def _present(folder: Path) -> int:
    marker = folder / "COMPLETE.json"
    if not marker.is_file():
        raise ValueError(f"{folder} is not a complete checkpoint: {marker.name} is missing")
    facts = json.loads(marker.read_text(encoding="utf-8"))
    for name in facts["sha256"]:
        if not (folder / name).is_file():
            raise ValueError(f"checkpoint {folder} lacks {name}")
    return int(facts["step"])


def differences(
    ledger: dict[int, set[Key]], files: dict[int, set[Key]], last: int
) -> Iterator[str]:
    """Sentences about steps up to `last` whose file and ledger do not hold the same rollouts.

    Later steps are still being entered: the ledger comes first, then the file, then the metrics."""
    for step in range(1, last + 1):
        entered, stored = ledger.get(step, set()), files.get(step)
        if stored is None:
            yield f"step {step} has no file of rollouts that can be read"
        elif entered != stored:
            yield (
                f"step {step}: {len(entered - stored)} rollout(s) of the ledger are not in the "
                f"file, {len(stored - entered)} of the file are not in the ledger at that step"
            )
