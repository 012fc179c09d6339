"""Checkpoints: taken at once, written beside, checksummed, renamed; a marker says "complete".

    step-00040/  policy/  state.pt  critic.pt  extra.json  COMPLETE.json (written last)

A folder without its marker, or with a file that differs from its checksum, is no checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from rltrain.train.model import inner_model
from rltrain.train.state import rng_state, snapshot

MARKER = "COMPLETE.json"
STATE = "state.pt"
EXTRA = "extra.json"
CRITIC = "critic.pt"
"""The value model of an actor-critic, with its optimizer. Beside the policy, so never exported."""
_PREFIX = "step-"


class Renders(Protocol):
    """Has the tokenizer that belongs to the model."""

    tokenizer: Any


class Trained(Protocol):
    """A learner as far as saving is concerned. One that can be gone on with has `state_dict`."""

    @property
    def model(self) -> Any: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One step's state in the CPU's memory, ready to be written by any thread."""

    step: int
    model: Any
    """For its class and config only; its weights train on."""
    weights: Mapping[str, torch.Tensor]
    tokenizer: Any
    state: Mapping[str, Any]
    critic: Mapping[str, Any] | None
    extra: Mapping[str, Any]

    def write(self, folder: Path) -> Path:
        """Write everything, whole or not at all. Raises whatever the disk raises."""
        work = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        _save_weights(work / "policy", self.model, self.tokenizer, self.weights)
        torch.save(dict(self.state), work / STATE)
        if self.critic is not None:
            torch.save(dict(self.critic), work / CRITIC)
        (work / EXTRA).write_text(json.dumps(self.extra))
        files = sorted(p for p in work.rglob("*") if p.is_file())
        sums = {p.relative_to(work).as_posix(): _sha256(p, sync=True) for p in files}
        for inner in (work / "policy", work):
            fsync(inner)
        (work / MARKER).write_text(json.dumps({"step": self.step, "sha256": sums}, indent=2))
        fsync(work / MARKER)
        fsync(work)
        _replace(work, folder)
        return folder


def take(
    learner: Trained, renderer: Renders, step: int, extra: Mapping[str, Any] | None = None
) -> Snapshot:
    """Copy a learner's state as it is now. extra: plain JSON values kept beside it."""
    known = getattr(learner, "state_dict", None)
    own = known() if known is not None else {"optimizer": learner.optimizer.state_dict()}
    critic = getattr(learner, "critic", None)
    return Snapshot(
        step=step,
        model=learner.model,
        weights=snapshot(_weights(learner.model)),
        tokenizer=renderer.tokenizer,
        state=snapshot({**own, "rng": rng_state()}),
        critic=None if critic is None else snapshot(critic.state_dict()),
        extra={} if extra is None else extra,
    )


def save_checkpoint(folder: Path, learner: Trained, renderer: Renders, step: int) -> Path:
    """Write a checkpoint and wait for it; returns the folder once whole."""
    return take(learner, renderer, step).write(folder)


def save_model(folder: Path, model: Any, tokenizer: Any) -> None:
    """Save what was trained: a PEFT adapter for a LoRA model, else the whole model, as
    safetensors with its tokenizer."""
    _save_weights(folder, model, tokenizer, None)


def _weights(model: Any) -> dict[str, torch.Tensor]:
    """What a checkpoint must hold of the model: with LoRA only what is trained."""
    state: dict[str, torch.Tensor] = model.state_dict()
    if not hasattr(model, "peft_config"):
        return state
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    return {name: tensor for name, tensor in state.items() if name in trained}


def _save_weights(
    folder: Path, model: Any, tokenizer: Any, weights: Mapping[str, torch.Tensor] | None
) -> None:
    model.save_pretrained(folder, state_dict=None if weights is None else dict(weights))
    generation = getattr(inner_model(model), "generation_config", None)
    if generation is not None and not hasattr(model, "peft_config"):  # a classifier has none
        generation.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _replace(work: Path, folder: Path) -> None:
    """Give `work` its name. A folder that has it already goes out of the way first."""
    if folder.exists():
        discard(folder)
    work.rename(folder)
    fsync(folder.parent)


def discard(folder: Path) -> None:
    """Remove a checkpoint such that a half-removed one is never taken for one."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def retain(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints under `folder`."""
    for old in marked(folder)[:-keep]:
        discard(old)


def verify_checkpoint(folder: Path) -> int:
    """The step of a whole checkpoint. Raises `ValueError` naming what is missing or damaged."""
    marker = folder / MARKER
    if not marker.is_file():
        raise ValueError(f"{folder} is not a complete checkpoint: {MARKER} is missing")
    try:
        facts = json.loads(marker.read_text())
        step, sums = int(facts["step"]), dict(facts["sha256"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"checkpoint {folder}: {MARKER} is damaged ({error})") from error
    for name, expected in sums.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"checkpoint {folder}: {MARKER} names {name}, which is outside of it")
        if not path.is_file():
            raise ValueError(f"checkpoint {folder} lacks {name}")
        try:
            found = _sha256(path)
        except OSError as error:
            raise ValueError(f"checkpoint {folder}: {name} cannot be read ({error})") from error
        if found != expected:
            raise ValueError(f"checkpoint {folder}: {name} is damaged (checksum differs)")
    return step


def step_of(folder: Path) -> int:
    """The step that a checkpoint's folder is named after, -1 for another name."""
    number = folder.name.removeprefix(_PREFIX)
    return int(number) if folder.name.startswith(_PREFIX) and number.isdecimal() else -1


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies among the run's."""
    return folder / f"{_PREFIX}{step:05d}"


def marked(folder: Path) -> list[Path]:
    """Checkpoints under `folder` that have their marker, oldest first."""
    found = [p for p in folder.glob(f"{_PREFIX}*") if (p / MARKER).is_file() and step_of(p) >= 0]
    return sorted(found, key=step_of)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint under `folder`, or None."""
    complete = marked(folder)
    return complete[-1] if complete else None


def fsync(path: Path) -> None:
    """Have a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path, *, sync: bool = False) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        if sync:
            os.fsync(file.fileno())
    return digest.hexdigest()
