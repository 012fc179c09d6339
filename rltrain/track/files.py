"""Files that are either whole or not there, and text that is safe to store and to show."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what was written there becomes `path` in one rename, or nothing does.

    Creates the folder. The temporary file is removed if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file, or leave the old one as it was."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def storable(text: str) -> str:
    """Text without lone surrogates, which neither UTF-8 nor Parquet can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def plain(value: Any) -> Any:
    """Plain JSON values; non-finite floats become the strings `NaN`, `Infinity`, `-Infinity`.

    JSON has no such numbers, and a diverged loss must not turn into a null that reads as absent."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return storable(value) if isinstance(value, str) else value
    number = float(value)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


def restore(value: Any) -> Any:
    """The inverse of `plain` for non-finite floats."""
    if isinstance(value, dict):
        return {key: restore(item) for key, item in value.items()}
    if isinstance(value, list):
        return [restore(item) for item in value]
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def nulled(value: Any) -> Any:
    """A copy in which every non-finite float is None, for readers who want a number or nothing."""
    if isinstance(value, Mapping):
        return {key: nulled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nulled(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON (no NaN literals), readable by anything."""
    return json.dumps(plain(value), allow_nan=False, ensure_ascii=False, indent=indent)
