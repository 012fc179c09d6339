"""One dataset of reasoning-gym as an environment: a question, an answer, the dataset's own scorer.

    train        endless: drawn in chunks, each with its own seed, without held-out questions
    validation   HELD_OUT tasks of a fixed seed
    test         HELD_OUT tasks of another
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from itertools import count, islice
from typing import Any, Literal

from rltrain.errors import EnvironmentFault, UserError
from rltrain.protocols import Agent, Check, Detector
from rltrain.types import Message, Task, Turn, Verdict
from rltrain_envs.reasoning_gym.scorers import UNSOUND

CHUNK = 500
HELD_OUT = 200
KEPT = 16
"""Datasets kept at hand; one that is not is made again, row by row as asked for."""
SEEDS = {"validation": 1_000_003, "test": 2_000_003}
STRIDE = 10_000_000
"""Seeds of training are `(seed + 1) * STRIDE + chunk`, which never meets those above."""
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
ASK = "\n\nGive your final answer between <answer> and </answer>, and nothing else between them."
BLIND = ("", "zzz", "0", "1", "True", "False", "[]", "()", "I cannot help with that.")
"""Answers that look at no question."""


@dataclass(slots=True, kw_only=True)
class Knows:
    """An agent that says the same kind of thing to every task."""

    name: str
    says: Callable[[Task], str]

    def answer(self, task: Task) -> str:
        return self.says(task)


class Session:
    """A single turn."""

    def __init__(self) -> None:
        self._answer: str | None = None

    async def step(self, turn: Turn) -> Sequence[Message] | None:
        self._answer = turn.text
        return None

    @property
    def answer(self) -> str:
        assert self._answer is not None, "the answer is there once step returned None"
        return self._answer

    async def close(self) -> None:
        """Nothing to release."""


@dataclass(slots=True, kw_only=True)
class Gate:
    """One check: a score in [0, 1] and a reason."""

    gate: str
    score: Callable[[Task, str], tuple[float, str]]
    pass_at: float
    version: str

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Raises `EnvironmentFault` if the dataset's scorer does."""
        score, reason = self.score(task, answer)
        return Verdict(gate=self.gate, passed=score >= self.pass_at, score=score, reason=reason,
                       version=self.version)  # fmt: skip


class ReasoningGym:
    """Implements `Environment` and `Audited`."""

    def __init__(
        self, dataset: str, config: Mapping[str, Any], form: Literal["tags", "text"]
    ) -> None:
        self.name = f"reasoning_gym.{dataset}"
        self.version = version("reasoning-gym")  # its own __version__ is another
        self._dataset, self._config, self._form = dataset, dict(config), form
        # Rows of training are drawn again where they are scored: what they hold besides the
        # question is any Python object, which does not travel.
        self._draw = lru_cache(maxsize=KEPT)(self._create)
        self._draw(SEEDS["test"])  # its settings are wrong now or never

    @cached_property
    def _hidden(self) -> set[str]:
        return {row["question"] for seed in SEEDS.values() for row in self._rows(seed)}

    def _create(self, seed: int) -> Any:
        try:
            return package().create_dataset(
                self._dataset, seed=seed, size=CHUNK, **self._config
            )
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(
                f"reasoning-gym cannot make the dataset {self._dataset!r} with {self._config} "
                f"({error}); put environment.args.dataset and environment.args.config right"
            ) from error

    def tasks(self, split: str, seed: int) -> Iterator[Task]:
        """Tasks of `train` (endless), `validation` or `test` (no question twice, 200 drawn each).

        Raises `UserError` for another split, and if training runs out of new questions."""
        if split in SEEDS:
            return self._fixed(split)
        if split != "train":
            raise UserError(f"there is no split {split!r}; there are train, validation and test")
        return self._endless(seed)

    def _rows(self, seed: int) -> list[Any]:
        return list(islice(self._draw(seed), HELD_OUT))

    def _fixed(self, split: str) -> Iterator[Task]:
        before = [] if split == "validation" else self._rows(SEEDS["validation"])
        seen = {row["question"] for row in before}
        for index, row in enumerate(self._rows(SEEDS[split])):
            if row["question"] not in seen:
                seen.add(row["question"])
                yield self._task(split, SEEDS[split], index, row)

    def _endless(self, seed: int) -> Iterator[Task]:
        for drawn in count((seed + 1) * STRIDE):
            found = 0
            for index, row in enumerate(self._draw(drawn)):
                if row["question"] not in self._hidden:
                    found += 1
                    yield self._task("train", drawn, index, row)
            if not found:
                raise UserError(
                    f"every question of {self.name} is held out: the dataset is too small for "
                    "training; set environment.args.config so that it has more"
                )

    def _task(self, split: str, seed: int, index: int, row: Mapping[str, Any]) -> Task:
        ask = row["question"] + (ASK if self._form == "tags" else "")
        return Task(
            id=f"{self._dataset}/{split}/{seed}/{index}",
            env=self.name,
            split=split,
            prompt=(Message(role="user", content=ask),),
            data={
                "gold": str(row["answer"]), "question": row["question"],
                "seed": seed, "index": index,
            },
        )  # fmt: skip

    def open(self, task: Task) -> Session:
        return Session()

    def checks(self) -> Mapping[str, Check]:
        """`format`: there is exactly one answer; `score`: the dataset's own scorer, which may give
        partial credit and passes every answer."""
        return {
            "format": Gate(gate="format", score=self._format, pass_at=1.0, version=self.version),
            "score": Gate(gate="score", score=self._score, pass_at=0.0, version=self.version),
        }

    def _format(self, task: Task, answer: str) -> tuple[float, str]:
        found = 1 if self._form == "text" else len(TAGGED.findall(answer))
        return (1.0, "") if found == 1 else (0.0, f"format: {found} tagged answers, not one")

    def _said(self, answer: str) -> str | None:
        if self._form == "text":
            return answer
        found = TAGGED.findall(answer)
        return found[0].strip() if len(found) == 1 else None

    def _score(self, task: Task, answer: str) -> tuple[float, str]:
        said = self._said(answer)
        if said is None:
            return 0.0, "format: no answer to score"
        try:
            drawn = self._draw(task.data["seed"])
            return float(drawn.score_answer(said, entry=drawn[task.data["index"]])), ""
        except Exception as error:  # somebody else's code on a policy's text
            raise EnvironmentFault(
                f"the scorer of {self.name} raised {type(error).__name__}: {error}"[:300]
            ) from error

    def detectors(self) -> Mapping[str, Detector]:
        return {}

    def truth(self, task: Task, answer: str) -> float:
        """The scorer's value; 1.0 is right."""
        return self._score(task, answer)[0]

    def canonical(self, task: Task, answer: str) -> str | None:
        """What stands between the tags, on one line."""
        said = self._said(answer)
        return None if said is None else " ".join(said.split())

    def judge_prompt(self, task: Task, canonical: str) -> Sequence[Message]:
        question = " ".join(task.data["question"].split())
        content = f"question: {question}\nanswer: {canonical}\ncorrect?"
        return (Message(role="user", content=content),)

    def _form_of(self, text: str) -> str:
        return f"<answer>{text}</answer>" if self._form == "tags" else text

    def oracle(self) -> Agent:
        """Says the answer that the dataset gives."""
        return Knows(name="oracle", says=lambda task: self._form_of(str(task.data["gold"])))

    def adversaries(self) -> Sequence[Agent]:
        """Answers that look at no question, and the question itself, in the form asked for."""
        blind = [self._always(text) for text in BLIND]
        echo = Knows(name="echo", says=lambda task: self._form_of(task.data["question"]))
        return [*blind, echo]

    def _always(self, text: str) -> Knows:
        said = self._form_of(text)
        return Knows(name=f"always {text!r}", says=lambda task: said)


def package() -> Any:
    """The package reasoning-gym. Raises `UserError` if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # in what it imports
            import reasoning_gym  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(
            "the environment reasoning_gym needs the package reasoning-gym; run: "
            "pip install 'rltrain[reasoning]'"
        ) from error
    return reasoning_gym


def build(
    dataset: str = "chain_sum",
    config: Mapping[str, Any] | None = None,
    answer: Literal["tags", "text"] = "tags",
    allow_unsound: bool = False,
) -> ReasoningGym:
    """Entry point.

    Args:
        dataset: a name of reasoning-gym's.
        config: the dataset's own settings.
        answer: the answer stands between tags, or is everything that was said.
        allow_unsound: take a dataset although its scorer is known to be gamed or to break.

    Raises `UserError` for an unknown or unsound dataset, or if the package is missing.
    """
    known = sorted(package().factory.DATASETS)
    if dataset not in known:
        raise UserError(f"reasoning-gym has no dataset {dataset!r}; it has {', '.join(known)}")
    if dataset in UNSOUND and not allow_unsound:
        raise UserError(
            f"{dataset} is not fit for training: {UNSOUND[dataset]}; choose another dataset, or "
            "say environment.args.allow_unsound=true"
        )
    return ReasoningGym(dataset, config or {}, answer)
