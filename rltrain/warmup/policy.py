"""The embedded policy: tokenizer, then a short supervised warm-up on demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rltrain.config.model import TinyModelConfig
from rltrain.protocols import Teachable
from rltrain.types import Message
from rltrain.warmup import sft
from rltrain.warmup.tokenizer import train_tokenizer


def chat_row(prompt: tuple[Message, ...], answer: str) -> dict[str, Any]:
    """A row in TRL's conversational prompt/completion format."""
    return {
        "prompt": [{"role": m.role, "content": m.content} for m in prompt],
        "completion": [{"role": "assistant", "content": answer}],
    }


def build_policy(
    teacher: Teachable, config: TinyModelConfig, folder: Path, progress: sft.Progress
) -> dict[str, Any]:
    """Build into `folder`; returns facts about the build (loss, parameters, examples)."""
    warmup = config.warmup
    torch.set_num_threads(warmup.threads)
    progress(0, warmup.steps, "drawing demonstrations")
    pairs = list(teacher.demonstrations(warmup.examples, warmup.seed, warmup.noise))
    texts = [text for task, answer in pairs for text in (task.prompt[-1].content, answer)]
    tokenizer = train_tokenizer(texts, config.vocab_size, config.max_length)
    shape = sft.Shape(
        hidden_size=config.hidden_size,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        intermediate_size=config.intermediate_size,
        max_length=config.max_length,
    )
    schedule = sft.Schedule(
        steps=warmup.steps, batch_size=warmup.batch_size, lr=warmup.lr, seed=warmup.seed
    )
    model = sft.new_model(tokenizer, shape, warmup.seed)
    rows = [chat_row(task.prompt, answer) for task, answer in pairs]
    facts = sft.train(model, tokenizer, rows, folder, progress, schedule)
    return {**facts, "examples": len(rows), "noise": warmup.noise}
