"""The embedded judge: a small language model that reads a request and a canonical answer and says
`yes` or `no`, trained on pairs labelled by execution. It is a model, so it errs, and a policy
trained against it will find where: that is what the truth curve and the detectors are for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from rltrain.config.rewards import TinyJudgeConfig
from rltrain.protocols import Environment, Teachable
from rltrain.types import Task
from rltrain.warmup import sft, verdicts
from rltrain.warmup.tokenizer import train_tokenizer

PROMPT_WEIGHT = 0.3
"""Weight of the loss on the prompt: reading the pair teaches more than one verdict token does."""
JUDGE_VOCAB = 1024
JUDGE_MAX_LENGTH = 256


class JudgeTeacher(Environment, Teachable, Protocol):
    """An environment that can teach a judge."""


@runtime_checkable
class Marker(Protocol):
    """An environment that knows right answers, so that a judge can be taught where one errs.
    Without it a judge learns from the verdicts alone, which takes far longer."""

    def right_answers(self, task: Task) -> Sequence[str]:
        """Canonical right answers to a task."""
        ...


def build_judge(
    teacher: JudgeTeacher, config: TinyJudgeConfig, folder: Path, progress: sft.Progress
) -> dict[str, Any]:
    """Build into `folder`; returns facts about the build."""
    torch.set_num_threads(config.threads)
    progress(0, config.steps, "drawing labelled pairs")
    pairs = list(labelled_pairs(teacher, config.examples, config.seed))
    texts = [pair.content for pair in pairs[:20_000]]
    # A verdict is a frequent word, or else it would not become a token of its own.
    texts += list(verdicts.WORDS) * len(texts)
    tokenizer = train_tokenizer(texts, JUDGE_VOCAB, JUDGE_MAX_LENGTH, reads_only=True)
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
    rows = verdicts.examples(pairs, tokenizer)
    loss = verdicts.train(model, tokenizer, rows, schedule, progress)
    model.to(device="cpu", dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    parameters = float(sum(p.numel() for p in model.parameters()))
    return {"loss": loss, "parameters": parameters, "examples": len(rows)}


def labelled_pairs(
    teacher: JudgeTeacher, count: int, seed: int, split: str = "train"
) -> Iterator[verdicts.Pair]:
    """`count` pairs as the judge is asked about them, with how far the wrong ones are fine."""
    marker = teacher if isinstance(teacher, Marker) else None
    for task, answer, correct in teacher.judge_examples(count, seed, split):
        fine = None
        if marker:
            # What is right by execution is fine to its end, even if nobody thought of it.
            right = (answer,) if correct else marker.right_answers(task)
            fine = verdicts.fine_until(answer, right)
        content = teacher.judge_prompt(task, answer)[-1].content
        yield verdicts.Pair(content=content, answer=answer, correct=correct, fine=fine)
