"""Rows -> token ids, under the names of the columns that TRL's trainers read.

The ids that were sampled are used wherever this tokenizer reads them back as the same text, because
a policy may sample another split of a text than its tokenizer makes of it. Elsewhere (a file
without ids, another tokenizer) the text is tokenized as the engine would have ended it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rltrain.types import Message

Row = Mapping[str, Any]
Ids = list[int]
Columns = dict[str, list[Ids]]

HELD_OUT = 10
"""One task in this many is kept back to measure a reward model."""


class Renders(Protocol):
    """Chat templates and token ids of one tokenizer (`rollout.render.Renderer`)."""

    tokenizer: Any

    def prompt(self, messages: Sequence[Message]) -> Ids: ...
    def text(self, ids: Sequence[int]) -> str: ...


def messages_of(row: Row) -> tuple[Message, ...]:
    return tuple(Message(role=m["role"], content=m["content"]) for m in row["prompt"])


def completion_columns(
    rows: Sequence[Row], sides: Sequence[str], renderer: Renders, max_length: int
) -> tuple[Columns, Counter[str]]:
    """Columns `prompt_ids` and `<side>_ids`, and counts by how they came about.

    Counts: `as_sampled` and `tokenized` (completions), `other_length` (of those tokenized, another
    number of tokens than were sampled) and `too_long` (rows left out: prompt and completion do not
    fit into `max_length`).
    """
    columns: Columns = {name: [] for name in ("prompt_ids", *(f"{side}_ids" for side in sides))}
    counts: Counter[str] = Counter()
    for row in rows:
        prompt = renderer.prompt(messages_of(row))
        known = list(row.get("prompt_ids") or prompt) == prompt
        found = {side: _completion(row, side, renderer, known) for side in sides}
        if len(prompt) + max(len(ids) for ids, _ in found.values()) > max_length:
            counts["too_long"] += 1
            continue
        columns["prompt_ids"].append(prompt)
        for side, (ids, how) in found.items():
            columns[f"{side}_ids"].append(ids)
            counts[how] += 1
            sampled = (row.get(f"{side}_rollout") or {}).get("tokens")
            if how == "tokenized" and sampled is not None and sampled != len(ids):
                counts["other_length"] += 1
    return columns, counts


def _completion(row: Row, side: str, renderer: Renders, known: bool) -> tuple[Ids, str]:
    text, ids = row[side][0]["content"], row.get(f"{side}_ids")
    if known and ids and renderer.text(ids) == text:
        return list(ids), "as_sampled"
    made = [int(i) for i in renderer.tokenizer.encode(text, add_special_tokens=False)]
    cut = (row.get(f"{side}_rollout") or {}).get("stop_reason") == "length"
    return made + ([] if cut else [int(renderer.tokenizer.eos_token_id)]), "tokenized"


def sft_columns(columns: Columns) -> Columns:
    """`input_ids` and `completion_mask`, as `SFTTrainer` takes rows that are tokenized already."""
    pairs = list(zip(columns["prompt_ids"], columns["completion_ids"], strict=True))
    return {
        "input_ids": [prompt + completion for prompt, completion in pairs],
        "completion_mask": [[0] * len(prompt) + [1] * len(ids) for prompt, ids in pairs],
    }


def judged_texts(rows: Sequence[Row]) -> tuple[list[tuple[Row, str, str]], Counter[str]]:
    """(row, chosen, rejected) as a reward model sees them: canonical wherever the row says what the
    canonical form is, because that is all that its gate will ever be shown.

    Left out and counted: `unparsed` (a side has no canonical form, so no gate would ask about it),
    `same` (both sides have the same form) and `repeated`.
    """
    kept: list[tuple[Row, str, str]] = []
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        chosen, rejected = (
            row.get(f"{side}_canonical", row[side][0]["content"]) for side in ("chosen", "rejected")
        )
        key = (str(row["prompt"]), str(chosen), str(rejected))
        if chosen is None or rejected is None:
            counts["unparsed"] += 1
        elif chosen == rejected:
            counts["same"] += 1
        elif key in seen:
            counts["repeated"] += 1
        else:
            seen.add(key)
            kept.append((row, chosen, rejected))
    return kept, counts


def split_tasks(
    pairs: Sequence[tuple[Row, str, str]],
) -> tuple[list[tuple[Row, str, str]], list[tuple[Row, str, str]]]:
    """(to train on, held out) by a hash of the prompt, so that no task is on both sides. Of a held
    out task one pair is kept, the first, so that the pairs measured on are independent."""
    train: list[tuple[Row, str, str]] = []
    held: dict[str, tuple[Row, str, str]] = {}
    for pair in pairs:
        prompt = str(pair[0]["prompt"])
        if int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % HELD_OUT == 0:
            held.setdefault(prompt, pair)
        else:
            train.append(pair)
    return train, list(held.values())


def judged_columns(
    pairs: Sequence[tuple[Row, str, str]],
    encode: Callable[[Sequence[Message], str], Ids],
    max_length: int,
) -> tuple[Columns, Counter[str]]:
    """Columns `chosen_ids` and `rejected_ids` of whole conversations; `encode` is the gate's."""
    columns: Columns = {"chosen_ids": [], "rejected_ids": []}
    counts: Counter[str] = Counter()
    for row, chosen, rejected in pairs:
        both = [encode(messages_of(row), text) for text in (chosen, rejected)]
        if max(map(len, both)) > max_length:
            counts["too_long"] += 1
            continue
        columns["chosen_ids"].append(both[0])
        columns["rejected_ids"].append(both[1])
    return columns, counts
