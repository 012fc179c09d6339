"""The seams of a run: small protocols, so that a test can pass a ten-line fake for any part.

Packages beside each other (`rollout`, `rewards`, `detectors`, `train`, `sync`, `track`) know one
another only through these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rltrain.types import Episode, Flag, Group, Judged, Message, StepStats, Task, Turn, Verdict

if TYPE_CHECKING:
    import torch


class Session(Protocol):
    """One episode in progress. Append-only: the environment returns only *new* messages."""

    async def step(self, turn: Turn) -> Sequence[Message] | None:
        """Answer a turn with new messages, or None when the episode is over.

        Raises `EnvironmentFault` if a backend failed; a wrong answer is never an exception."""
        ...

    @property
    def answer(self) -> str:
        """What will be judged; valid once `step` returned None."""
        ...

    async def close(self) -> None: ...


class Check(Protocol):
    """One gate's test of an answer. Pure of learning: it sees a task and an answer, no tokens."""

    version: str

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Score the answer. Raises `SystemFault` when it cannot say."""
        ...


class Detector(Protocol):
    """Looks for one kind of reward hacking in one rollout. Pure; never sees the gold answer."""

    version: str

    def __call__(self, judged: Judged) -> str | None:
        """Evidence for a person to read, or None."""
        ...


class Environment(Protocol):
    """A source of tasks and everything that can be said about an answer to one."""

    name: str
    version: str

    def tasks(self, split: str, seed: int) -> Iterator[Task]:
        """Tasks of a split, deterministic per seed. `train` is endless; held-out splits end.

        Raises `UserError` for a split that does not exist, naming those that do."""
        ...

    def open(self, task: Task) -> Session: ...

    def checks(self) -> Mapping[str, Check]:
        """Gates that this environment brings, by the name used in `rewards.stages`."""
        ...

    def detectors(self) -> Mapping[str, Detector]:
        """Detectors that this environment brings, by the name used in `detectors`."""
        ...

    def truth(self, task: Task, answer: str) -> float | None:
        """Verified outcome in [0, 1] by execution; None where it cannot be measured."""
        ...

    def canonical(self, task: Task, answer: str) -> str | None:
        """The parsed answer printed canonically, or None if it does not parse."""
        ...

    def judge_prompt(self, task: Task, canonical: str) -> Sequence[Message]:
        """What a judge is asked. Built from the canonical answer, never from raw policy text."""
        ...


class Agent(Protocol):
    """Answers a task without a model: an oracle, a null agent, a scripted adversary."""

    name: str

    def answer(self, task: Task) -> str: ...


@runtime_checkable
class Audited(Protocol):
    """An environment that can be attacked by scripted agents."""

    def oracle(self) -> Agent: ...
    def adversaries(self) -> Sequence[Agent]: ...


@runtime_checkable
class Teachable(Protocol):
    """An environment with enough examples of its own to warm up a small policy and a judge."""

    def demonstrations(self, count: int, seed: int, noise: float) -> Iterator[tuple[Task, str]]:
        """Train tasks with an answer each; a share `noise` of the answers are bad ones."""
        ...

    def judge_examples(
        self, count: int, seed: int, split: str
    ) -> Iterator[tuple[Task, str, bool]]:
        """Tasks of a split with a canonical answer and whether it is right, by execution."""
        ...


class Sampler(Protocol):
    """Token ids in, token ids and log-probabilities out."""

    async def generate(
        self, prompt_ids: Sequence[int], *, n: int, seed: int | None, max_tokens: int
    ) -> Sequence[Turn]:
        """Sample n completions of one prompt. Raises `EngineFault`."""
        ...


class WeightSync(Protocol):
    """Brings the learner's weights to every engine and proves that they arrived."""

    async def push(self, model: torch.nn.Module, version: int) -> Mapping[str, float]:
        """Returns seconds by part. Raises `SyncError` if an engine serves anything else."""
        ...

    async def serves(self, version: int) -> bool:
        """Whether every engine that can be asked serves this version."""
        ...


class GroupSource(Protocol):
    """Where the loop gets its groups: the lag-bounded buffer over the ledger."""

    async def take(self, count: int) -> Sequence[Group]: ...


class Tracker(Protocol):
    """A sink of metrics. Failing to log never stops a run; losing a record silently is a bug."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class Learner(Protocol):
    """Owns the policy's parameters and the optimizer."""

    model: torch.nn.Module

    def step(self, batch: Any) -> StepStats: ...


__all__ = [
    "Agent", "Audited", "Check", "Detector", "Environment", "Episode", "Flag", "GroupSource",
    "Iterable", "Learner", "Sampler", "Session", "Teachable", "Tracker", "WeightSync",
]
