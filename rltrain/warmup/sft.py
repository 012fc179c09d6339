"""Supervised training from scratch with TRL's `SFTTrainer`. A judge's training is in `verdicts`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, note)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Size of a model."""

    hidden_size: int
    layers: int
    max_length: int
    heads: int = 4
    kv_heads: int = 2
    intermediate_size: int | None = None
    """None takes 8/3 of the hidden size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast to train."""

    steps: int
    batch_size: int
    lr: float
    seed: int
    prompt_weight: float = 0.0
    """A judge's: weight of the loss on the prompt, beside that on the verdict."""


def new_model(tokenizer: PreTrainedTokenizerFast, shape: Shape, seed: int) -> Qwen3ForCausalLM:
    """A freshly initialised Qwen3-architecture model with tied embeddings."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size or shape.hidden_size * 8 // 3,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.hidden_size // shape.heads,
        max_position_embeddings=shape.max_length,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        # On the CPU the plain attention: the backward of torch's fused kernel costs half a step.
        attn_implementation="sdpa" if torch.cuda.is_available() else "eager",
    )
    return Qwen3ForCausalLM(config)


def tokenized(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerFast
) -> dict[str, list[list[int]]]:
    """Columns `input_ids` and `completion_mask` of prompt/completion rows, through the chat
    template: what SFTTrainer would make one row at a time, in a tenth of the time."""
    prompts = [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        for row in rows
    ]
    ends = [f"{row['completion'][0]['content']}{tokenizer.eos_token}" for row in rows]
    first = tokenizer(prompts, add_special_tokens=False).input_ids
    second = tokenizer(ends, add_special_tokens=False).input_ids
    return {
        "input_ids": [a + b for a, b in zip(first, second, strict=True)],
        "completion_mask": [
            [0] * len(a) + [1] * len(b) for a, b in zip(first, second, strict=True)
        ],
    }


class _Report(TrainerCallback):
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.progress(state.global_step, state.max_steps, f"loss {float(logs['loss']):.3f}")


def train(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[dict[str, Any]],
    folder: Path,
    progress: Progress,
    schedule: Schedule,
) -> dict[str, float]:
    """Train on prompt/completion rows; save model and tokenizer into `folder`. Returns facts.

    Raises:
        RuntimeError: if the loss is not finite at the end.
    """
    args = SFTConfig(
        output_dir=str(folder / "trainer"),
        max_steps=schedule.steps,
        per_device_train_batch_size=schedule.batch_size,
        learning_rate=schedule.lr,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, schedule.steps // 20),
        weight_decay=0.01,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        completion_only_loss=True,
        max_length=None,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        logging_steps=10,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=schedule.seed,
        data_seed=schedule.seed,
        dataloader_num_workers=0,
        dataset_num_proc=None,
        train_sampling_strategy="group_by_length",
    )
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict(tokenized(rows, tokenizer)),
        processing_class=tokenizer,
        callbacks=[_Report(progress)],
    )
    result = trainer.train()
    model.to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    loss = float(result.training_loss)
    if not math.isfinite(loss):
        raise RuntimeError(f"warm-up diverged (loss {loss}); lower the learning rate")
    return {"loss": loss, "parameters": float(sum(p.numel() for p in model.parameters()))}
