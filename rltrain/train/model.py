"""Loads the policy for training, with or without LoRA, and names its trainable weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rltrain.config.algo import LoraConfig, TrainConfig
from rltrain.errors import UserError


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one. Raises `UserError` for a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device=cuda but torch sees no GPU; use train.device=auto")
    return torch.device(name)


def attention_kind(device: torch.device) -> str:
    """transformers' name of the attention to train with. On the CPU the plain one: the backward of
    torch's fused CPU kernel takes half of a small model's step (scripts/bench_learner.py)."""
    return "eager" if device.type == "cpu" else "sdpa"


def load_policy(folder: str | Path, config: TrainConfig) -> Any:
    """A transformers causal LM with fp32 parameters on the device, LoRA layers added if asked.

    Raises:
        UserError: if there is no loadable model at `folder`.
    """
    from transformers import AutoModelForCausalLM

    device = pick_device(config.device)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=torch.float32, attn_implementation=attention_kind(device)
        )
    except (OSError, ValueError) as error:
        raise UserError(f"no model at {folder}: {str(error).splitlines()[0]}") from error
    model.config.use_cache = False
    if config.lora:
        model = add_lora(model, config.lora)
    return model.to(device)


def add_lora(model: Any, config: LoraConfig) -> Any:
    """Wrap with PEFT; only the adapter's weights are trainable."""
    from peft import get_peft_model

    return get_peft_model(model, peft_config(config))


def peft_config(config: LoraConfig, task: str = "CAUSAL_LM") -> Any:
    """The section as PEFT's own config. task: `SEQ_CLS` also trains the head, in full."""
    from peft import LoraConfig as PeftLora

    return PeftLora(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        task_type=task,
    )


def inner_model(model: Any) -> Any:
    """The transformers model itself, beneath a PEFT wrapper if there is one."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def full_state(model: Any) -> Mapping[str, torch.Tensor]:
    """Weights under the names of the model's own checkpoint format, tied ones once."""
    state: dict[str, torch.Tensor] = inner_model(model).state_dict()
    if getattr(inner_model(model).config, "tie_word_embeddings", False):
        state = {k: v for k, v in state.items() if k != "lm_head.weight"}
    return state
