"""The embedded judge: a small language model that reads a request and a canonical answer and says
`yes` or `no`, trained on pairs labelled by execution. It is a model, so it errs, and a policy
trained against it will find where: that is what the truth curve and the detectors are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from rltrain.config.rewards import TinyJudgeConfig
from rltrain.protocols import Environment, Teachable
from rltrain.warmup import sft
from rltrain.warmup.policy import chat_row
from rltrain.warmup.tokenizer import train_tokenizer

PROMPT_WEIGHT = 0.3
"""Weight of the loss on the prompt: reading the pair teaches more than one verdict token does."""
JUDGE_VOCAB = 1024
JUDGE_MAX_LENGTH = 256


class JudgeTeacher(Environment, Teachable, Protocol):
    """An environment that can teach a judge."""


def build_judge(
    teacher: JudgeTeacher, config: TinyJudgeConfig, folder: Path, progress: sft.Progress
) -> dict[str, Any]:
    """Build into `folder`; returns facts about the build."""
    torch.set_num_threads(config.threads)
    progress(0, config.steps, "drawing labelled pairs")
    rows = []
    for task, canonical, correct in teacher.judge_examples(config.examples, config.seed, "train"):
        prompt = tuple(teacher.judge_prompt(task, canonical))
        rows.append(chat_row(prompt, "yes" if correct else "no"))
    texts = (row["prompt"][-1]["content"] for row in rows[:20_000])
    tokenizer = train_tokenizer([*texts, "yes", "no"], JUDGE_VOCAB, JUDGE_MAX_LENGTH)
    shape = sft.Shape(
        hidden_size=config.hidden_size, layers=config.layers, max_length=JUDGE_MAX_LENGTH
    )
    schedule = sft.Schedule(
        steps=config.steps,
        batch_size=config.batch_size,
        lr=config.lr,
        seed=config.seed,
        prompt_weight=PROMPT_WEIGHT,
    )
    model = sft.new_model(tokenizer, shape, config.seed)
    facts = sft.train(model, tokenizer, rows, folder, progress, schedule)
    return {**facts, "examples": len(rows)}
