"""Supervised training from scratch with TRL's `SFTTrainer`: what policy and judge have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, note)."""


def new_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden_size: int,
    layers: int,
    heads: int = 4,
    kv_heads: int = 2,
    intermediate_size: int | None = None,
    max_length: int,
    seed: int,
) -> Qwen3ForCausalLM:
    """A freshly initialised Qwen3-architecture model with tied embeddings."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size or hidden_size * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden_size // heads,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


class _Report(TrainerCallback):
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.progress(state.global_step, state.max_steps, f"loss {float(logs['loss']):.3f}")


class _WeightedSFT(SFTTrainer):
    """SFTTrainer whose loss also reads the prompt, at a reduced weight, when asked to."""

    prompt_weight = 0.0

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        if not self.prompt_weight:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        each = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        ).view_as(ids[:, 1:])
        answer = (inputs["labels"][:, 1:] != -100).float()
        prompt = mask[:, 1:].float() * (1 - answer)
        loss = (each * answer).sum() / answer.sum() + self.prompt_weight * (
            each * prompt
        ).sum() / prompt.sum().clamp(min=1)
        return (loss, None) if return_outputs else loss


def train(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[dict[str, Any]],
    folder: Path,
    progress: Progress,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    prompt_weight: float = 0.0,
) -> dict[str, float]:
    """Train on prompt/completion rows and save model and tokenizer into `folder`.

    Loss on the completion; plus `prompt_weight` times the loss on the prompt. Returns facts.
    """
    args = SFTConfig(
        output_dir=str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=lr,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 20),
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
        seed=seed,
        data_seed=seed,
        dataloader_num_workers=0,
        dataset_num_proc=None,
        train_sampling_strategy="group_by_length",
    )
    trainer = _WeightedSFT(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        callbacks=[_Report(progress)],
    )
    trainer.prompt_weight = prompt_weight
    result = trainer.train()
    model.to(torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    loss = float(result.training_loss)
    if not math.isfinite(loss):
        raise RuntimeError(f"warm-up diverged (loss {loss}); lower the learning rate")
    return {"loss": loss, "parameters": float(sum(p.numel() for p in model.parameters()))}
