"""Checkpoints: written beside, checksummed, renamed; a marker written last says "complete"."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch

from rltrain.train.model import inner_model

MARKER = "COMPLETE.json"
CRITIC = "critic.pt"
"""The value model of an actor-critic, with its optimizer. Beside the policy, so never exported."""


class Renders(Protocol):
    """Has the tokenizer that belongs to the model."""

    tokenizer: Any


class Trained(Protocol):
    """A learner as far as saving is concerned."""

    @property
    def model(self) -> Any: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...


def save_checkpoint(folder: Path, learner: Trained, renderer: Renders, step: int) -> Path:
    """Write model (or adapter), tokenizer, optimizer and critic; returns the folder once whole."""
    work = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    save_model(work / "policy", learner.model, renderer.tokenizer)
    torch.save(learner.optimizer.state_dict(), work / "optimizer.pt")
    critic = getattr(learner, "critic", None)
    if critic is not None:
        torch.save(critic.state_dict(), work / CRITIC)
    files = sorted(p for p in work.rglob("*") if p.is_file())
    sums = {p.relative_to(work).as_posix(): _sha256(p) for p in files}
    (work / MARKER).write_text(json.dumps({"step": step, "sha256": sums}, indent=2))
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return folder


def save_model(folder: Path, model: Any, tokenizer: Any) -> None:
    """Save what was trained: a PEFT adapter for a LoRA model, else the whole model, as
    safetensors with its tokenizer."""
    model.save_pretrained(folder)
    generation = getattr(inner_model(model), "generation_config", None)
    if generation is not None and not hasattr(model, "peft_config"):  # a classifier has none
        generation.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def restore_critic(folder: Path, critic: Any) -> None:
    """Bring back the critic of a whole checkpoint. Raises `ValueError` if there is none in it, or
    one of another model."""
    path = folder / CRITIC
    if not path.is_file():
        raise ValueError(f"checkpoint {folder} lacks {CRITIC}")
    critic.load_state_dict(torch.load(path, weights_only=True))


def verify_checkpoint(folder: Path) -> int:
    """The step of a whole checkpoint. Raises `ValueError` naming what is missing or damaged."""
    marker = folder / MARKER
    if not marker.is_file():
        raise ValueError(f"{folder} is not a complete checkpoint: {MARKER} is missing")
    try:
        facts = json.loads(marker.read_text())
        step, sums = int(facts["step"]), dict(facts["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"checkpoint {folder}: {MARKER} is damaged ({error})") from error
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"checkpoint {folder} lacks {name}")
        if _sha256(path) != expected:
            raise ValueError(f"checkpoint {folder}: {name} is damaged (checksum differs)")
    return step


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint under `folder`, or None."""
    complete = [p for p in sorted(folder.glob("step-*")) if (p / MARKER).is_file()]
    return complete[-1] if complete else None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
