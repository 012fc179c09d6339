"""facts/<part>.json: what is true of the whole run, written whole and once by the part's owner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rltrain.track.files import restore, to_json, write_text

PARTS = (
    "run", "engine", "timing", "judge", "eval_before", "eval_after", "ledger", "data", "offline",
    "precision",
)  # fmt: skip
"""The parts that a complete run has; `judge` only if a judge is among its gates, `data` and
`offline` in place of `ledger` for an offline method, whose reward models have no evaluation;
`precision` where learner and engine were compared, which older runs and replays were not."""


def write_fact(run_dir: Path, part: str, values: Mapping[str, Any]) -> None:
    """Write facts/<part>.json. Raises `ValueError` for a part that nobody would read."""
    write_text(_path(run_dir, part), to_json(values, indent=1) + "\n")


def read_fact(run_dir: Path, part: str) -> dict[str, Any] | None:
    """The values of a part, or None if its owner never got to write them.

    Raises `ValueError` for an unknown part, and for a file that is not a JSON object (nothing of
    ours writes half of one)."""
    path = _path(run_dir, part)
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not an object")
    restored: dict[str, Any] = restore(values)
    return restored


def _path(run_dir: Path, part: str) -> Path:
    if part not in PARTS:
        raise ValueError(f"no such fact: {part!r}; known are {', '.join(PARTS)}")
    return run_dir / "facts" / f"{part}.json"
