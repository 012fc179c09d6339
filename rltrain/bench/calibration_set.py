"""Ground-truth sets: answers with what several raters said about each.

    --labels FILE            people's ratings, one JSON object a line
    judge_examples(split)    labelled by execution, rated by *synthetic* raters: noisy copies of it

An adjudicated label is what most raters say; a file of adjudications overrides it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.agreement import FloatArray
from rltrain.bench.calibration_raters import decide, majority, noisy
from rltrain.errors import UserError
from rltrain.protocols import Environment, Teachable
from rltrain.types import Message, Task

WORDS = {
    **dict.fromkeys(("yes", "right", "correct", "true", "pass", "good"), 1.0),
    **dict.fromkeys(("no", "wrong", "incorrect", "false", "fail", "bad"), 0.0),
}
"""Verdicts in words that a rater may give beside those of `rewards.judge.verdicts`."""
SEARCHED = 20_000
"""Train tasks looked through for an id."""
OVERSAMPLED = 4
"""Pairs drawn for each that is kept, so that every stratum is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One answer to one task."""

    key: str
    """Names it in reports and adjudications; follows from task and answer."""
    task: Task
    answer: str
    kind: str
    """Stratum: the task's tier where it has one."""
    truth: float | None = None
    """By execution; None if not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """A rater table with its adjudicated labels."""

    items: tuple[Item, ...]
    raters: tuple[str, ...]
    scores: FloatArray
    """[N, M] in [0, 1]; nan where a rater did not rate."""
    settled: Mapping[str, float]
    """Adjudications by key."""
    source: str
    synthetic: bool
    """Whether the raters are noisy copies of the executed truth."""

    def labels(self, pass_at: float) -> FloatArray:
        """[N] 1.0 (right), 0.0, or nan where raters tie and nobody settled it."""
        found = majority(decide(self.scores, pass_at))
        for place, item in enumerate(self.items):
            if item.key in self.settled:
                found[place] = self.settled[item.key]
        return found

    @property
    def digest(self) -> str:
        """Of items, ratings and adjudications."""
        keys = [item.key for item in self.items]
        text = json.dumps([self.raters, keys, self.scores.tolist(), sorted(self.settled.items())])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def key_of(task: Task, answer: str) -> str:
    """12 hex digits."""
    return hashlib.sha256(json.dumps([task.id, answer]).encode()).hexdigest()[:12]


def item_of(task: Task, answer: str, kind: str = "", truth: float | None = None) -> Item:
    stratum = kind or str(task.meta.get("tier", "all"))
    return Item(key=key_of(task, answer), task=task, answer=answer, kind=stratum, truth=truth)


def from_environment(
    env: Environment, count: int, split: str, *, seed: int, errors: Sequence[float]
) -> GroundTruth:
    """`count` pairs of held-out tasks, even over label and tier, with synthetic raters.

    errors: how often each is wrong. Raises `UserError` where nothing labels by execution, or for an
    unknown split."""
    if not isinstance(env, Teachable):
        raise UserError(
            f"environment {env.name} has no labelled examples of its own; give --labels FILE with "
            "the ratings of at least two people"
        )
    if len(errors) < 2 or not all(0 <= error < 0.5 for error in errors):
        raise UserError("--rater-errors needs two or more shares below 0.5, such as 0.07,0.085,0.1")
    drawn: dict[str, Item] = {}
    for task, answer, right in env.judge_examples(OVERSAMPLED * count, seed, split):
        item = item_of(task, answer, truth=float(right))
        drawn.setdefault(item.key, item)  # held-out splits end; a pair may come again
    items = tuple(stratified(drawn.values(), count))
    truth = np.array([item.truth for item in items], dtype=np.float64)
    return GroundTruth(
        items=items,
        raters=tuple(f"synthetic {number}" for number in range(1, len(errors) + 1)),
        scores=noisy(truth, errors, seed),
        settled={},
        source=f"{split} tasks of {env.name}, labelled by execution",
        synthetic=True,
    )


def stratified(items: Iterable[Item], count: int) -> list[Item]:
    """At most `count`, taking turns among strata of label and kind, each in its own order."""
    strata: dict[tuple[float | None, str], list[Item]] = defaultdict(list)
    for item in items:
        strata[item.truth, item.kind].append(item)
    turns = itertools.zip_longest(*(strata[name] for name in sorted(strata, key=str)))
    return [item for turn in turns for item in turn if item is not None][:count]


def from_file(path: Path, env: Environment, words: Mapping[str, float]) -> GroundTruth:
    """Read ratings. words: what verdicts in words are worth, beside `WORDS`.

    Raises `UserError` naming a line that is not of the form, or an id that no task has."""
    rows = list(_lines(path))
    tasks = find_tasks(env, {str(row["id"]) for _, row in rows if "id" in row})
    names = sorted({name for _, row in rows for name in row.get("ratings", {})})
    if len(names) < 2:
        raise UserError(f"{path} has ratings of {len(names)} rater(s); at least two are needed")
    items, scores = [], np.full((len(rows), len(names)), np.nan)
    for place, (number, row) in enumerate(rows):
        where = f"{path}, line {number}"
        task = tasks[str(row["id"])] if "id" in row else _asked(row, env, where)
        answer = row.get("answer")
        if not isinstance(answer, str) or not isinstance(row.get("ratings"), dict):
            raise UserError(f"{where}: needs `answer` (text) and `ratings` (rater -> verdict)")
        items.append(item_of(task, answer, str(row.get("kind", "")), env.truth(task, answer)))
        for name, value in row["ratings"].items():
            scores[place, names.index(name)] = worth(value, words, where)
    doubled = [key for key, n in _counted(item.key for item in items).items() if n > 1]
    if doubled:
        raise UserError(f"{path} has one answer to one task twice (item {doubled[0]}); merge them")
    return GroundTruth(
        items=tuple(items), raters=tuple(names), scores=scores, settled={},
        source=str(path), synthetic=False,
    )  # fmt: skip


def adjudications(path: Path, known: GroundTruth, words: Mapping[str, float]) -> dict[str, float]:
    """Labels by item key from lines `{"item": …, "label": …}`; the last line on an item counts.

    Raises `UserError` for a line of another form, or an item that the set does not have."""
    found, keys = {}, {item.key for item in known.items}
    for number, row in _lines(path):
        where = f"{path}, line {number}"
        if row.get("item") not in keys:
            raise UserError(f"{where}: the ground-truth set has no item {row.get('item')!r}")
        found[str(row["item"])] = float(worth(row.get("label"), words, where) >= 0.5)
    return found


def find_tasks(env: Environment, wanted: set[str]) -> dict[str, Task]:
    """Tasks by id: held-out splits, then the first train tasks. Raises `UserError`."""
    found: dict[str, Task] = {}
    for split, limit in (("test", None), ("validation", None), ("train", SEARCHED)):
        if len(found) == len(wanted):
            return found
        try:
            stream = itertools.islice(env.tasks(split, 0), limit)
        except UserError:
            continue
        found |= {task.id: task for task in stream if task.id in wanted}
    missing = sorted(wanted - found.keys())
    if missing:
        raise UserError(
            f"no task has the id {missing[0]!r} ({len(missing)} unknown); see `rltrain tasks`, or "
            "give `request` in place of `id`"
        )
    return found


def worth(value: object, words: Mapping[str, float], where: str) -> float:
    """A rating as a score in [0, 1]; None is nan. Raises `UserError`."""
    if value is None:
        return float("nan")
    if isinstance(value, str) and value.strip().lower() in {**WORDS, **words}:
        return {**WORDS, **words}[value.strip().lower()]
    if isinstance(value, int | float) and 0 <= value <= 1:  # true and false as well
        return float(value)
    known = ", ".join({**WORDS, **words})
    raise UserError(f"{where}: rating {value!r} is neither in [0, 1] nor one of {known}")


def _asked(row: Mapping[str, Any], env: Environment, where: str) -> Task:
    request = row.get("request")
    if not isinstance(request, str):
        raise UserError(f"{where}: needs `id` of a task, or `request`")
    data = {"request": request, **row.get("data", {})}
    name = hashlib.sha256(request.encode()).hexdigest()[:16]
    prompt = (Message(role="user", content=request),)
    return Task(id=f"given/{name}", env=env.name, prompt=prompt, split="given", data=data)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: not a JSON object")
            yield number, row


def _counted(keys: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for key in keys:
        counts[key] += 1
    return counts
