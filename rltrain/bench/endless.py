"""A small untrained policy that never ends a turn, so that every answer has exactly as many tokens
as its budget, whoever samples: its end-of-turn token lies outside of the model's vocabulary."""

from __future__ import annotations

import itertools
from pathlib import Path

from rltrain.protocols import Environment

NEVER = "<|never|>"


def save_endless(folder: Path, env: Environment, *, max_length: int = 256) -> int:
    """Write model and tokenizer; returns the number of parameters.

    Qwen3 architecture, hidden size 256, four layers, byte-level BPE of the environment's prompts.
    """
    from rltrain.warmup.sft import Shape, new_model
    from rltrain.warmup.tokenizer import train_tokenizer

    texts = [m.content for t in itertools.islice(env.tasks("train", 0), 2_000) for m in t.prompt]
    tokenizer = train_tokenizer(texts, 1024, max_length)
    model = new_model(tokenizer, Shape(hidden_size=256, layers=4, max_length=max_length), seed=0)
    tokenizer.add_special_tokens({"eos_token": NEVER})
    for config in (model.config, model.generation_config):
        config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())
