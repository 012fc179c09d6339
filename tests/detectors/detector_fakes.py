"""Small real objects for the detectors' tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rltrain.protocols import Detector
from rltrain.types import Episode, Flag, Group, Judged, Message, Screened, Task, Turn


def judged(answer: str, asked: str = "List our best customers", *, text: str = "") -> Judged:
    task = Task(id="t", env="fake", prompt=(Message(role="user", content=asked),), split="train")
    turn = Turn(
        prompt_ids=(1,),
        completion_ids=(2,),
        logprobs=(-0.1,),
        version=0,
        stop_reason="stop",
        text=text or answer,
    )
    episode = Episode(task=task, sample=0, turns=(turn,), answer=answer, ended="answered")
    return Judged(episode=episode, verdicts=(), reward=1.0, truth=None)


def member(task: Task, answer: str, *, reward: float, truth: float | None, tokens: int) -> Screened:
    turn = Turn(
        prompt_ids=(1,),
        completion_ids=(2,) * tokens,
        logprobs=(-0.1,) * tokens,
        version=0,
        stop_reason="stop",
        text=answer,
    )
    episode = Episode(task=task, sample=0, turns=(turn,), answer=answer, ended="answered")
    inner = Judged(episode=episode, verdicts=(), reward=reward, truth=truth, canonical=None)
    return Screened(judged=inner, flags=(), reward=reward)


def group(
    asked: str,
    answers: Sequence[str],
    *,
    reward: float = 1.0,
    truth: float | None = 0.0,
    tokens: int = 3,
) -> Group:
    task = Task(id=asked, env="fake", prompt=(Message(role="user", content=asked),), split="train")
    members = [member(task, a, reward=reward, truth=truth, tokens=tokens) for a in answers]
    return Group(lease=0, task=task, members=tuple(members))


class Says:
    """A detector that always finds the same."""

    version = "1"

    def __init__(self, evidence: object) -> None:
        self.evidence = evidence

    def __call__(self, judged: Judged) -> str | None:
        if isinstance(self.evidence, Exception):
            raise self.evidence
        return self.evidence  # type: ignore[return-value]


class OwnDetectors:
    """As much of an environment as the detectors look at."""

    name = "fake"

    def __init__(self, detectors: Mapping[str, Detector]) -> None:
        self._detectors = detectors

    def detectors(self) -> Mapping[str, Detector]:
        return self._detectors


__all__ = ["Flag", "OwnDetectors", "Says", "group", "judged", "member"]
