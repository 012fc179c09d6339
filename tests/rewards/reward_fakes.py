"""A small environment and checks that record how they were called."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rltrain.protocols import Check, Detector, Session
from rltrain.types import Episode, Message, Task, Turn, Verdict


def make_task(asked: str = "vip customers", **data: Any) -> Task:
    prompt = (Message(role="user", content=asked),)
    return Task(id=asked, env="fake", prompt=prompt, split="train", data=data)


def make_episode(answer: str = "tag = 'vip'", task: Task | None = None) -> Episode:
    turn = Turn(
        prompt_ids=(1,),
        completion_ids=(2,),
        logprobs=(-0.1,),
        version=0,
        stop_reason="stop",
        text=answer,
    )
    return Episode(
        task=task or make_task(), sample=0, turns=(turn,), answer=answer, ended="answered"
    )


class Recorder:
    """A check that says what it is told and keeps every answer that it was asked about."""

    version = "7"

    def __init__(self, outcome: Verdict | Exception) -> None:
        self.outcome = outcome
        self.seen: list[str] = []

    async def __call__(self, task: Task, answer: str) -> Verdict:
        self.seen.append(answer)
        await asyncio.sleep(0)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def passing(score: float = 1.0, reason: str = "") -> Recorder:
    return Recorder(Verdict(gate="x", passed=True, score=score, reason=reason, version="7"))


def failing(score: float = 0.0) -> Recorder:
    return Recorder(Verdict(gate="x", passed=False, score=score, reason="wrong", version="7"))


class FakeEnvironment:
    """Answers parse unless they contain `???`; the canonical form is upper case."""

    name = "fake"
    version = "1"

    def __init__(self, checks: Mapping[str, Check], truth: float | Exception | None = 0.25) -> None:
        self._checks = checks
        self._truth = truth
        self.truths = 0

    def tasks(self, split: str, seed: int) -> Iterator[Task]:
        yield make_task()

    def open(self, task: Task) -> Session:
        raise NotImplementedError

    def checks(self) -> Mapping[str, Check]:
        return self._checks

    def detectors(self) -> Mapping[str, Detector]:
        return {}

    def truth(self, task: Task, answer: str) -> float | None:
        self.truths += 1
        if isinstance(self._truth, Exception):
            raise self._truth
        return self._truth

    def canonical(self, task: Task, answer: str) -> str | None:
        return None if "???" in answer else answer.upper()

    def judge_prompt(self, task: Task, canonical: str) -> Sequence[Message]:
        asked = task.prompt[0].content
        return (Message(role="user", content=f"Is {canonical} right for {asked}?"),)
