"""An environment for timing: another environment's tasks, and a reward that costs nothing.

    environment.entry=rltrain.bench.environment:build
    +environment.args.inner=rltrain_envs.segments:build

The reward is a TRL reward function, used by both sides of a comparison as it is. It is arbitrary
(a bit of a checksum), so that groups have spread and every step has a gradient.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rltrain.build import environment
from rltrain.config.rollout import EnvironmentConfig
from rltrain.protocols import Check, Detector, Environment, Session
from rltrain.rewards.trl import TRLCheck
from rltrain.types import Message, Task

REWARD = "checksum"


def checksum(completions: Sequence[Any], **_: Any) -> list[float]:
    """One bit of each answer's CRC-32."""
    return [float(zlib.crc32(_text(completion).encode()) & 1) for completion in completions]


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else "".join(m["content"] for m in completion)


class TimingEnvironment:
    """Implements `protocols.Environment`; there is no truth, so it serves no other end."""

    version = "1"

    def __init__(self, inner: Environment) -> None:
        self.inner = inner
        self.name = f"timing-{inner.name}"

    def tasks(self, split: str, seed: int) -> Iterator[Task]:
        return self.inner.tasks(split, seed)

    def open(self, task: Task) -> Session:
        return self.inner.open(task)

    def checks(self) -> Mapping[str, Check]:
        return {REWARD: TRLCheck(checksum)}

    def detectors(self) -> Mapping[str, Detector]:
        return {}

    def truth(self, task: Task, answer: str) -> float | None:
        return None

    def canonical(self, task: Task, answer: str) -> str | None:
        return None

    def judge_prompt(self, task: Task, canonical: str) -> Sequence[Message]:
        raise NotImplementedError("the timing environment is not judged")


def build(inner: str, **args: Any) -> TimingEnvironment:
    """Entry point: `inner` is the other environment's, `args` are passed on to it. Raises
    `UserError` if it cannot be loaded."""
    return TimingEnvironment(environment(EnvironmentConfig(entry=inner, args=args)))
