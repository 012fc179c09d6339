"""Training of the embedded judge: one verdict per pair, and where the answer goes wrong.

    pair -> Example (token ids, marks, verdict) -> batches of like length -> loss -> Muon

A single verdict per pair says little about why. So every token of an answer is a question too:
is what was read so far the beginning of a right answer? The same yes-against-no logit answers it,
which makes the verdict the last of many answers. At serving time only the verdict is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from rltrain.warmup.sft import Progress, Schedule

MARK_WEIGHT = 1.0
"""Weight of the loss on the marks, beside that on the verdict."""
MUON_LR = 0.02
IGNORED = -100
_SORTED = 50
"""Batches' worth of examples that are sorted by length together, so that little is padded."""
WORDS = ("yes", "no")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A question to the judge with what is known about it."""

    content: str
    """The prompt's text; the answer stands in it as it is."""
    answer: str
    correct: bool
    fine: int | None
    """Characters of the answer with which some right answer begins too; None if not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A pair as tokens: prompt, verdict, end."""

    ids: list[int]
    marks: list[int]
    """Per token: 1 if the answer is fine up to here, 0 if not, `IGNORED` outside the answer."""
    correct: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Examples padded at the right, [B, T]; the last [B] are positions whose next token is the
    verdict."""

    ids: torch.Tensor
    targets: torch.Tensor
    """[B, T] next tokens; `IGNORED` for the verdict and the padding."""
    marks: torch.Tensor
    last: torch.Tensor
    correct: torch.Tensor


def fine_until(answer: str, right: Sequence[str]) -> int:
    """Length of the longest beginning that the answer shares with one of the right answers."""
    best = 0
    for text in right:
        same = (a == b for a, b in zip(answer, text, strict=False))
        best = max(best, next((i for i, equal in enumerate(same) if not equal),
                              min(len(answer), len(text))))
    return best


def examples(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """Tokenized through the chat template."""
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": pair.content}], add_generation_prompt=True, tokenize=False
        )
        for pair in pairs
    ]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    yes, no = verdict_ids(tokenizer)
    made = []
    rows = zip(pairs, texts, encoded.input_ids, encoded.offset_mapping, strict=True)
    for pair, text, ids, offsets in rows:
        verdict = [yes if pair.correct else no, tokenizer.eos_token_id]
        marks = [*_marks(pair, text, offsets), IGNORED, IGNORED]
        made.append(Example(ids=[*ids, *verdict], marks=marks, correct=pair.correct))
    return made


def _marks(pair: Pair, text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    start = text.rfind(pair.answer)
    if pair.fine is None or start < 0:
        return [IGNORED] * len(offsets)
    end, fine = start + len(pair.answer), start + pair.fine
    return [
        int(until <= fine) if begin >= start and until <= end else IGNORED
        for begin, until in offsets
    ]


def verdict_ids(tokenizer: PreTrainedTokenizerFast) -> tuple[int, int]:
    """Tokens of `yes` and `no`, which the vocabulary holds as one token each."""
    yes, no = (tokenizer(word, add_special_tokens=False).input_ids for word in WORDS)
    assert len(yes) == len(no) == 1, "a verdict must be one token"
    return yes[0], no[0]


def batches(rows: Sequence[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Full batches of like length, endless, every row once a round. Deterministic per seed."""
    rng = Random(seed)
    order = list(range(len(rows)))
    while True:
        rng.shuffle(order)
        made = []
        for at in range(0, len(order), size * _SORTED):
            part = sorted(order[at : at + size * _SORTED], key=lambda i: len(rows[i].ids))
            made += [part[k : k + size] for k in range(0, len(part), size)]
        rng.shuffle(made)
        full = [batch for batch in made if len(batch) == size] or made
        yield from ([rows[i] for i in batch] for batch in full)


def collate(rows: Sequence[Example], pad: int) -> Batch:
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [pad] * (width - len(row.ids)) for row in rows])
    marks = torch.tensor([row.marks + [IGNORED] * (width - len(row.ids)) for row in rows])
    targets = torch.full_like(ids, IGNORED)
    for i, row in enumerate(rows):
        targets[i, : len(row.ids) - 1] = ids[i, 1 : len(row.ids)]
    last = torch.tensor([len(row.ids) - 3 for row in rows])
    targets[torch.arange(len(rows)), last] = IGNORED
    correct = torch.tensor([row.correct for row in rows])
    return Batch(ids=ids, targets=targets, marks=marks, last=last, correct=correct)


def loss(
    model: Qwen3ForCausalLM, batch: Batch, words: tuple[int, int], prompt_weight: float
) -> torch.Tensor:
    """Cross-entropy of the verdict + MARK_WEIGHT * that of the marks + prompt_weight * that of the
    other tokens, each the mean over its tokens."""
    yes, no = words
    hidden = model.model(input_ids=batch.ids).last_hidden_state
    rows = torch.arange(len(batch.ids), device=hidden.device)
    said = model.lm_head(hidden[rows, batch.last]).float()
    total = cross_entropy(said, torch.where(batch.correct, yes, no))
    marked = batch.marks != IGNORED
    if bool(marked.any()):
        towards_yes = (model.lm_head.weight[yes] - model.lm_head.weight[no]).float()
        leaning = hidden[marked].float() @ towards_yes
        truth = batch.marks[marked].float()
        total = total + MARK_WEIGHT * binary_cross_entropy_with_logits(leaning, truth)
    read = batch.targets != IGNORED
    seen = cross_entropy(model.lm_head(hidden[read]).float(), batch.targets[read])
    return total + prompt_weight * seen


def train(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Example],
    schedule: Schedule,
    progress: Progress,
) -> float:
    """Train in place; returns the mean loss of the last tenth of the steps.

    Raises:
        RuntimeError: if that is not finite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    optimizers = _optimizers(model, schedule.lr)
    plans = [_plan(optimizer, schedule.steps) for optimizer in optimizers]
    words, pad = verdict_ids(tokenizer), tokenizer.pad_token_id
    source = batches(rows, schedule.batch_size, schedule.seed)
    seen: list[float] = []
    for step in range(1, schedule.steps + 1):
        batch = _moved(collate(next(source), pad), device)
        with torch.autocast(device.type, torch.bfloat16):
            value = loss(model, batch, words, schedule.prompt_weight)
        model.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, plan in zip(optimizers, plans, strict=True):
            optimizer.step()
            plan.step()
        seen.append(float(value.detach()))
        if step % 10 == 0:
            progress(step, schedule.steps, f"loss {sum(seen[-10:]) / 10:.3f}")
    end = seen[-max(1, len(seen) // 10) :]
    if not math.isfinite(sum(end)):
        raise RuntimeError("the judge's training diverged; lower rewards.judge.tiny.lr")
    return sum(end) / len(end)


def _optimizers(model: Qwen3ForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of the layers, AdamW for embedding and norms."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, weight in model.named_parameters():
        (matrices if weight.ndim == 2 and "embed" not in name else others).append(weight)
    return [
        torch.optim.Muon(matrices, lr=MUON_LR, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def _plan(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate goes up in a line for a twentieth, then down in half a cosine."""
    warm = max(1, steps // 20)

    def share(step: int) -> float:
        down = max(0, step - warm) / max(1, steps - warm)
        return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * down))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _moved(batch: Batch, device: torch.device) -> Batch:
    moved: dict[str, Any] = {
        name: getattr(batch, name).to(device)
        for name in ("ids", "targets", "marks", "last", "correct")
    }
    return Batch(**moved)
