"""The file of selected rows: JSON lines that TRL itself would read, checked before use.

    pairs    {"prompt": [message…], "chosen": [message], "rejected": [message], …}
    answers  {"prompt": [message…], "completion": [message], …}

A message is {"role": …, "content": …}. Further keys tell where a row comes from (`group`,
`*_rollout`), what exactly was sampled (`*_ids`) and what a judge may see (`*_canonical`); all are
optional, so that files from elsewhere work too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rltrain.errors import UserError

Row = dict[str, Any]
SIDES = {
    "sft": ("completion",),
    "dpo": ("chosen", "rejected"),
    "reward_model": ("chosen", "rejected"),
}
"""Keys of the answers that each method learns from."""


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write JSON lines. Raises `UserError` where nothing can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def read_rows(path: Path, method: str) -> list[Row]:
    """Read and check the rows that a method needs.

    Raises:
        UserError: if the file is missing, empty, or has a line of another kind, naming the line.
    """
    if not path.is_file():
        raise UserError(f"algo.data={path} is not a file; make one with `rltrain pairs RUN`")
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}:{number} is not JSON: {error}") from error
            problem = _problem(row, SIDES[method])
            if problem:
                raise UserError(f"{path}:{number} cannot be used for algo={method}: {problem}")
            rows.append(row)
    if not rows:
        raise UserError(f"{path} has no rows to learn from")
    return rows


def _problem(row: Any, sides: Sequence[str]) -> str:
    if not isinstance(row, dict):
        return "it is not an object"
    for key in ("prompt", *sides):
        if not _is_chat(row.get(key)):
            return f"{key!r} is not a list of messages with role and content"
    for key in sides:
        if len(row[key]) != 1 or row[key][0]["role"] != "assistant":
            return f"{key!r} is not one assistant message"
    return ""


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(message, dict)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
            for message in value
        )
    )
