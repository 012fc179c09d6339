"""Back from disk: the newest whole checkpoint, and a learner that goes on as if it had never ended.

The learner is made first, from the model that training began with: its reference and its base
weights are that model's. Only then do the checkpoint's weights come in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from rltrain.errors import UserError
from rltrain.train.checkpoint import CRITIC, EXTRA, STATE, step_of, verify_checkpoint
from rltrain.train.model import full_state, inner_model
from rltrain.train.state import restore_rng

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def newest_whole(folder: Path, skipped: Callable[[str], None]) -> Path | None:
    """The newest checkpoint under `folder` that is what its checksums say, or None.

    One that is not is named to `skipped` with what is wrong, and set aside under a hidden name, so
    that it neither counts as kept nor stands in the way of its successor."""
    for path in sorted((p for p in folder.glob("step-*") if step_of(p) >= 0), key=step_of)[::-1]:
        try:
            step = verify_checkpoint(path)
            if step != step_of(path):
                raise ValueError(f"checkpoint {path} is one of step {step}")
            return path
        except ValueError as error:
            skipped(f"{path.name} is skipped: {error}")
            aside = path.with_name(f".{path.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    return None


def tidy(folder: Path) -> None:
    """Remove what writes and removals that were cut short left behind."""
    for pattern in (".step-*.tmp", ".step-*.old"):
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def restore(folder: Path, learner: Any) -> dict[str, Any]:
    """Bring a learner to where a verified checkpoint was taken; returns what was kept beside it.

    Raises:
        UserError: if it is one of another model (naming the first tensor that differs and both
            shapes), or holds no state to go on from.
    """
    if not (folder / STATE).is_file():
        raise UserError(
            f"{folder} holds weights but no training state ({STATE} is missing), so the run cannot "
            "be continued from it; start a new run from those weights with model=hub model.name=…"
        )
    state = torch.load(folder / STATE, weights_only=True, map_location="cpu")
    load_weights(folder / "policy", learner.model)
    learner.load_state_dict(state)
    critic = getattr(learner, "critic", None)
    if critic is not None:
        try:
            restore_critic(folder, critic)
        except ValueError as error:
            raise UserError(f"{error}; continue with the config that the run began with") from error
    restore_rng(state["rng"])
    extra: dict[str, Any] = json.loads((folder / EXTRA).read_text())
    return extra


def restore_critic(folder: Path, critic: Any) -> None:
    """Bring back the critic of a whole checkpoint. Raises `ValueError` if there is none in it, or
    one of another model."""
    path = folder / CRITIC
    if not path.is_file():
        raise ValueError(f"checkpoint {folder} lacks {CRITIC}")
    critic.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))


def load_weights(folder: Path, model: Any) -> None:
    """Put saved weights into a model of the same architecture.

    Raises `UserError` naming the first tensor that differs, and both shapes."""
    if hasattr(model, "peft_config"):
        _load_adapter(folder, model)
        return
    if (folder / ADAPTER_CONFIG).is_file():
        raise UserError(
            f"{folder} is a LoRA adapter but the run trains all weights; continue with the same "
            "train.lora as before"
        )
    from transformers import AutoModelForCausalLM

    saved = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    state = full_state(saved)
    _require_same(state, full_state(model), folder)
    inner_model(model).load_state_dict(state, strict=False)  # a tied head is not named


def _load_adapter(folder: Path, model: Any) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise UserError(
            f"{folder} holds a whole model but the run trains an adapter; continue with the same "
            "train.lora as before"
        )
    saved = load_file(path)
    _require_same(saved, get_peft_model_state_dict(model), folder)
    set_peft_model_state_dict(model, saved)


def _require_same(
    saved: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], folder: Path
) -> None:
    for name in [*own, *(saved.keys() - own.keys())]:
        there, here = _shape(saved.get(name)), _shape(own.get(name))
        if there != here:
            raise UserError(
                f"{folder} is of another model: {name} is {there} there and {here} here; continue "
                "with the model that the run began with, or start a new run"
            )


def _shape(tensor: torch.Tensor | None) -> str:
    return "absent" if tensor is None else str(list(tensor.shape))
