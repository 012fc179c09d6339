"""The nouns of a run, in the order in which a datum passes through them.

    Task -> Episode -> Judged -> Screened -> Group -> Sample -> Batch -> StepStats

Each stage takes the previous type and returns the next; nothing is filled in later, so the type
says how far a datum has come. All are frozen and made of plain values (no tensors before `Batch`),
so that they cross process borders as MessagePack and land on disk as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is asked. `data` is the hidden truth and is never rendered into a prompt."""

    id: str
    """Unique within the environment; the same id is the same task in every process."""
    env: str
    """Name of the environment that made it."""
    prompt: tuple[Message, ...]
    split: str
    data: Mapping[str, Any] = field(default_factory=dict)
    """Gold answer and whatever the checks need. Plain JSON values."""
    meta: Mapping[str, Scalar] = field(default_factory=dict)
    """Shown in reports: tier, skeleton, language."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One generation, exactly as the engine sampled it: these ids are never re-tokenized."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Log-probability (nats) of each completion id under the sampling distribution, same length."""
    version: int
    """Oldest policy version that sampled a token of this turn."""
    stop_reason: str
    """`stop` (end-of-turn token sampled) or `length` (cut by the token budget)."""
    text: str
    """The decoded completion, without special tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One attempt at a task: the turns and how it ended."""

    task: Task
    sample: int
    """Index within the group, 0-based."""
    turns: tuple[Turn, ...]
    answer: str
    """What the checks look at: the text of the last turn, or what a tool call submitted."""
    ended: str
    """`answered`, `truncated` (token budget) or `max_turns`."""
    wall_s: float = 0.0

    @property
    def version(self) -> int:
        """Oldest policy version of any turn: the one that staleness is measured from."""
        return min(turn.version for turn in self.turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one gate said about one answer."""

    gate: str
    passed: bool
    score: float
    """In [0, 1]; what the answer earns if this gate is the last one reached."""
    reason: str = ""
    """Machine-readable code first, then detail: `syntax: expected a value at 17`."""
    wall_s: float = 0.0
    version: str = "1"
    """Version of the validator, so that curves made under different rules are told apart."""
    cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An episode with its verdicts, in gate order, up to and including the first failure."""

    episode: Episode
    verdicts: tuple[Verdict, ...]
    reward: float
    truth: float | None
    """Verified outcome in [0, 1], measured for every rollout; None where it cannot be measured."""
    canonical: str | None = None
    """The parsed answer printed canonically; None if it does not parse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """What one detector found in one rollout, with the evidence to show a person."""

    detector: str
    evidence: str
    action: str
    """`keep` (report only), `zero` (reward becomes 0) or `drop` (removed from the group)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A judged episode after the detectors. `reward` is the one that is trained on."""

    judged: Judged
    flags: tuple[Flag, ...]
    reward: float

    @property
    def dropped(self) -> bool:
        return any(flag.action == "drop" for flag in self.flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A sibling that the system lost. It has no reward and no vote in the group's baseline."""

    sample: int
    kind: str
    """`engine`, `judge`, `environment`, `tool` or `storage`."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The siblings of one task, sampled together; the unit of leasing and of advantages."""

    lease: int
    """Number of the lease in the ledger; increases by one per leased task."""
    task: Task
    members: tuple[Screened, ...]
    faults: tuple[Fault, ...] = ()
    timing: Mapping[str, float] = field(default_factory=dict)
    """Seconds by part: `generate_s`, `reward_s`."""
    greedy: Screened | None = None
    """The answer at temperature 0, sampled beside the siblings if the advantage compares with it.
    Judged as they are, never trained on."""

    @property
    def version(self) -> int:
        """Oldest policy version in the group."""
        return min(member.judged.episode.version for member in self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One trainable sequence: numbers only, no text left. All tuples have length T."""

    ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    """True where the policy sampled the token."""
    logprobs: tuple[float, ...]
    """Behaviour log-probability (nats) where `loss_mask`, 0 elsewhere."""
    advantages: tuple[float, ...]
    """Advantage where `loss_mask`, 0 elsewhere."""
    version: int
    """Oldest policy version that sampled any of its tokens."""
    versions: tuple[int, ...] = ()
    """Policy version of each token where `loss_mask`; empty where all are `version`."""
    prefix: int = 0
    """Leading tokens that all samples of one `family` share, so that they are computed once."""
    family: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """What one learner step measured. Every value is a plain float, ready for the log."""

    loss: float
    grad_norm: float
    lr: float
    tokens: int
    """Trained tokens, summed over ranks."""
    wall_s: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Named groups: `mismatch/…`, `ratio/…`, `policy/…`."""
