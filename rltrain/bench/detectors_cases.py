"""Labelled answers: what a line of the JSONL says, and how it becomes what a detector sees.

    {"request": "…", "answer": "…", "kinds": ["refusal"], "correct": false}

| field | | |
|---|---|---|
| `answer` | needed | what the policy said |
| `kinds` | needed | kinds of hack that are in it, by detector name; [] for none |
| `request` | "" | what was asked |
| `correct` | null | whether the answer is right, by execution; null where unknown |
| `labelled` | all | the kinds that the label speaks of; the others are not scored on this line |
| `env`, `data` | "", {} | environment and hidden data of the task; its own detectors need both |
| `completion` | answer | the whole text of the turn, reasoning included |
| `id`, `source`, `template` | made up | shown; `template` ties lines that are variants of one |
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rltrain.errors import UserError
from rltrain.types import Episode, Judged, Message, Task, Turn


@runtime_checkable
class Planted(Protocol):
    """An environment that can plant hacks of its own and say what a rollout is."""

    def planted(self, vocabulary: str, count: int, seed: int) -> Iterable[Mapping[str, Any]]:
        """Rows as above, over about `count` tasks; `vocabulary` is `a` or `b`."""
        ...

    def labels(self, task: Task, answer: str) -> Mapping[str, bool]:
        """Kind of hack -> present or not, without asking a detector."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One labelled answer."""

    id: str
    source: str
    template: str
    request: str
    answer: str
    kinds: frozenset[str]
    correct: bool | None
    labelled: frozenset[str] | None
    """None: the label speaks of every kind."""
    env: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    completion: str = ""

    def speaks_of(self, kind: str) -> bool:
        return kind in self.kinds or self.labelled is None or kind in self.labelled


def read_cases(path: Path) -> list[Case]:
    """Cases of a JSONL file. Raises `UserError` naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read cases from {path}: {error}") from error
    cases = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                cases.append(case_of(json.loads(line), path.stem, number))
            except ValueError as error:
                raise UserError(f"{path}, line {number}: {error}") from error
    if not cases:
        raise UserError(f"{path} holds no cases; each line is an object with answer and kinds")
    return cases


def case_of(row: Any, source: str, number: int) -> Case:
    """One row as a case. Raises `ValueError` that says which field is wrong."""
    if not isinstance(row, Mapping):
        raise ValueError("expected a JSON object")
    for key in ("answer", "kinds"):
        if key not in row:
            raise ValueError(f"the field {key!r} is missing")
    unknown = sorted(set(row) - _FIELDS)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; there are {', '.join(sorted(_FIELDS))}")
    for key in _TEXTS & set(row):
        if not isinstance(row[key], str):
            raise ValueError(f"{key!r} must be text, not {row[key]!r}")
    correct = row.get("correct")
    if correct is not None and not isinstance(correct, bool):
        raise ValueError(f"'correct' must be true, false or null, not {correct!r}")
    if not isinstance(row.get("data", {}), Mapping):
        raise ValueError("'data' must be an object")
    labelled = row.get("labelled")
    name = str(row.get("id", f"{source}-{number}"))
    return Case(
        id=name, source=str(row.get("source", source)), template=str(row.get("template", name)),
        request=row.get("request", ""), answer=row["answer"], kinds=_names(row["kinds"], "kinds"),
        correct=correct, labelled=None if labelled is None else _names(labelled, "labelled"),
        env=row.get("env", ""), data=row.get("data", {}), completion=row.get("completion", ""),
    )  # fmt: skip


_TEXTS = {"id", "source", "template", "request", "answer", "env", "completion"}
_FIELDS = _TEXTS | {"kinds", "correct", "labelled", "data"}


def _names(value: Any, key: str) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key!r} must be a list of detector names, not {value!r}")
    return frozenset(value)


def to_judged(case: Case) -> Judged:
    """What a detector is shown: the request, the answer and the task's data, no label."""
    task = Task(
        id=case.id, env=case.env, split="bench", data=case.data,
        prompt=(Message(role="user", content=case.request),),
    )  # fmt: skip
    turn = Turn(
        prompt_ids=(), completion_ids=(), logprobs=(), version=0, stop_reason="stop",
        text=case.completion or case.answer,
    )  # fmt: skip
    episode = Episode(task=task, sample=0, turns=(turn,), answer=case.answer, ended="answered")
    return Judged(episode=episode, verdicts=(), reward=0.0, truth=None)


def to_row(case: Case) -> dict[str, Any]:
    """The case as one line of the JSONL; `read_cases` gives it back."""
    row: dict[str, Any] = {
        "id": case.id, "source": case.source, "template": case.template, "request": case.request,
        "answer": case.answer, "kinds": sorted(case.kinds), "correct": case.correct,
        "env": case.env, "data": dict(case.data), "completion": case.completion,
    }  # fmt: skip
    if case.labelled is not None:
        row["labelled"] = sorted(case.labelled)
    return row
