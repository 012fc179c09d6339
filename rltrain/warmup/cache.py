"""A folder per built model, named by the hash of its ingredients, and marked complete last."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MARKER = "COMPLETE.json"


def content_key(ingredients: Mapping[str, Any]) -> str:
    """16 hex digits over the canonical JSON of the ingredients."""
    text = json.dumps(ingredients, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_digest(*folders: Path) -> str:
    """Hash of the Python and JSON sources under folders: a changed generator is a new model."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix in {".py", ".json"}):
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def is_complete(folder: Path) -> bool:
    return (folder / MARKER).is_file()


def build_once(folder: Path, build: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts of the model in `folder`, building it first if it is not complete.

    `build` writes into a temporary folder beside it, which is renamed when done: a build that was
    interrupted leaves nothing that could be taken for a model.
    """
    if is_complete(folder):
        return dict(json.loads((folder / MARKER).read_text()))
    _sweep(folder)
    work = folder.with_name(f"{folder.name}.building-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        facts = dict(build(work))
        (work / MARKER).write_text(json.dumps(facts, indent=2))
        if is_complete(folder):  # somebody else finished first; theirs is the same
            return facts
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
        return facts
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed builds of this model left behind."""
    for left in folder.parent.glob(f"{folder.name}.building-*"):
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
