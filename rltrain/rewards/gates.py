"""Gates in order: `Episode -> Judged -> Screened`.

    check ── pass ──> check ── pass ──> screen ── pass ──> judge ── pass ──> its score
      └ on_fail         └ on_fail         └ on_fail          └ on_fail         in its band

The first failure ends the walk, so that a costly judge never sees what a cheap parser rejected.
Two things happen for *every* rollout, wherever it failed: the detectors run, so that hack rates are
over all rollouts, and the truth is measured, so that the reward can be compared with it. The truth
is never part of the reward.

A wrong answer is a score; a broken part is an exception (`SystemFault`), and no `Screened` is made.
That worse outcomes pay less is for `rltrain.rewards.lint` to see to, before a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Protocol, TypeVar

from rltrain.config.rewards import BonusConfig, StageConfig
from rltrain.errors import EnvironmentFault, RltrainError, SystemFault, UserError
from rltrain.protocols import Check, Environment
from rltrain.rewards.bonus import Bonuses
from rltrain.rewards.ladder import passing_band, within
from rltrain.rewards.pairwise import PENDING, GroupCheck
from rltrain.rewards.stages import JUDGE, JUDGE_PAIRWISE, REWARD_MODEL, SCREEN, Stage, resolve
from rltrain.rewards.verdicts import is_applicable, raised, require_unit
from rltrain.types import Episode, Flag, Judged, Screened, Task, Verdict

T = TypeVar("T")

BLOCKING = frozenset({"zero", "drop"})
"""Actions that fail the `screen` gate; `keep` only reports."""


class Screener(Protocol):
    """The detectors as the gates see them: a judged episode in, findings out."""

    def __call__(self, judged: Judged) -> tuple[Flag, ...]:
        """Raises `EnvironmentFault` if a detector is broken."""
        ...


class _Walk:
    """One rollout's way through the gates. Single-use."""

    def __init__(self, episode: Episode, canonical: str | None, truth: float | None) -> None:
        self.episode = episode
        self.canonical = canonical
        self.truth = truth
        self.verdicts: list[Verdict] = []
        self.flags: tuple[Flag, ...] | None = None
        self.score: float | None = None
        """Of the last gate that had one; None until then."""
        self.band: tuple[float, float] | None = None
        """Of that gate."""

    def judged(self, reward: float, truth: float | None) -> Judged:
        return Judged(
            episode=self.episode,
            verdicts=tuple(self.verdicts),
            reward=reward,
            truth=truth,
            canonical=self.canonical,
        )


class GatedReward:
    """Turns an episode into a screened reward by walking the configured stages."""

    def __init__(
        self,
        stages: Sequence[StageConfig],
        environment: Environment,
        screen: Screener | None = None,
        judge: Check | None = None,
        reward_model: Check | None = None,
        bonus: Mapping[str, BonusConfig] | None = None,
        pairwise: Check | None = None,
    ) -> None:
        """Resolve every stage now, so that a typing mistake stops the run before it starts.

        Args:
            stages: gates in order; at least one.
            environment: brings the checks, the canonical form and the truth.
            screen: the detectors; needed if `screen` is a stage.
            judge: called with the *canonical* answer; needed if `judge` is a stage.
            reward_model: likewise, for the stage `reward_model`.
            bonus: by name, paid inside the passing band.
            pairwise: likewise, for the stage `judge_pairwise`.

        Raises `UserError` for an unknown, repeated, unavailable or broken stage or bonus.
        """
        self.environment = environment
        self.stages = tuple(stages)
        self._screen = screen
        self._bonuses = Bonuses(bonus or {})
        self._band = passing_band(self.stages)
        models = {JUDGE: judge, JUDGE_PAIRWISE: pairwise, REWARD_MODEL: reward_model}
        self._stages = resolve(self.stages, environment, models)
        if screen is None and any(stage.check == SCREEN for stage in self.stages):
            raise UserError(f"rewards.stages names {SCREEN!r}, but no {SCREEN} was configured.")
        if any(isinstance(stage.check, GroupCheck) for stage in self._stages[:-1]):
            raise UserError("rewards.stages: 'judge_pairwise' compares siblings; put it last.")
        # A flagged rollout never earns more than this, whether or not it reached the screen.
        self._flagged_cap = min((s.on_fail for s in self.stages if s.check == SCREEN), default=0.0)

    def standing_in(self, gates: Iterable[str], check: Check) -> GatedReward:
        """A copy whose named gates ask `check` instead of their own."""
        names, clone = set(gates), copy(self)
        clone._stages = tuple(
            replace(stage, check=check, memory=None) if stage.config.gate in names else stage
            for stage in self._stages
        )
        return clone

    async def judge_episode(self, episode: Episode) -> Screened:
        """Walk the gates, run the detectors, measure the truth.

        `judged.reward` is `on_fail` of the first failed stage; if none fails, the score of the last
        stage that had one, with its bonuses, in that stage's band. `reward` is that after the
        detectors: a `zero` finding caps it at the screen's `on_fail` (0 if there is no such stage).
        `drop` leaves it and sets `Screened.dropped`.

        Raises `SystemFault` (never a score) if a check, a detector, the truth or the judge broke.
        """
        task, answer, env = episode.task, episode.answer, self.environment
        canonical = _guard("canonical", lambda: env.canonical(task, answer))
        truth = _guard("truth", lambda: env.truth(task, answer))
        walk = _Walk(
            episode, canonical, None if truth is None else require_unit(truth, "Measuring truth")
        )
        failed: Stage | None = None
        for stage in self._stages:
            if not await self._pass(stage, walk):
                failed = stage
                break
        reward = self._passing(walk) if failed is None else failed.config.on_fail
        flags = self._flags(walk, reward)
        return Screened(
            judged=walk.judged(reward, walk.truth),
            flags=flags,
            reward=self._after_flags(reward, flags),
        )

    async def judge_group(
        self, task: Task, members: Sequence[Screened], seed: int
    ) -> list[Screened | SystemFault]:
        """Settle what only siblings can tell: the last gate, if it compares them. Else the members
        as they are.

        seed: of who is compared with whom. A member without any comparison is its fault.
        """
        last = self._stages[-1]
        if not isinstance(last.check, GroupCheck):
            return list(members)
        settled: list[Screened | SystemFault] = list(members)
        pending = [n for n, m in enumerate(members) if not m.dropped and _is_pending(m)]
        answers = [members[n].judged.canonical or "" for n in pending]
        scores = await last.check.judge.rank(task, answers, seed) if answers else []
        for n, score in zip(pending, scores, strict=True):
            settled[n] = (
                score
                if isinstance(score, SystemFault)
                else self._settled(members[n], last, last.check, score)
            )
        return settled

    def _settled(
        self, member: Screened, stage: Stage, check: GroupCheck, score: float
    ) -> Screened:
        judged = member.judged
        verdict = check.settled(judged.verdicts[-1], score)
        reward = stage.config.on_fail
        if verdict.passed:
            earned = self._bonuses.earned(score, judged.episode)
            reward = within(stage.config.band or self._band, earned)
        verdicts = (*judged.verdicts[:-1], verdict)
        return replace(
            member,
            judged=replace(judged, verdicts=verdicts, reward=reward),
            reward=self._after_flags(reward, member.flags),
        )

    async def _pass(self, stage: Stage, walk: _Walk) -> bool:
        """Ask one gate and keep its verdict."""
        name, screens = stage.config.gate, stage.config.check == SCREEN
        started = time.perf_counter()
        if screens:
            verdict = self._screen_verdict(walk)
        else:
            verdict = await stage.ask(walk.episode.task, walk.episode.answer, walk.canonical)
        verdict = replace(verdict, gate=name, wall_s=time.perf_counter() - started)
        carries = verdict.passed and (screens or not is_applicable(verdict))
        if carries:
            verdict = replace(verdict, score=walk.score or 0.0)
        require_unit(verdict.score, f"Check {name!r}")
        walk.verdicts.append(verdict)
        if verdict.passed and not carries:
            walk.score, walk.band = verdict.score, stage.config.band or self._band
        return verdict.passed

    def _passing(self, walk: _Walk) -> float:
        if walk.score is None:
            raise EnvironmentFault("Every gate found itself not applicable, so there is no reward.")
        return within(walk.band, self._bonuses.earned(walk.score, walk.episode))

    def _screen_verdict(self, walk: _Walk) -> Verdict:
        flags = self._flags(walk, walk.score or 0.0)
        found = [flag.detector for flag in flags if flag.action in BLOCKING]
        reason = f"flagged: {', '.join(found)}" if found else ""
        # Passing the screen earns nothing by itself: the score of the gate before it is carried on.
        return Verdict(gate=SCREEN, passed=not found, score=0.0, reason=reason)

    def _flags(self, walk: _Walk, reward: float) -> tuple[Flag, ...]:
        """Findings of this rollout; the detectors run once. They are not shown the truth."""
        if walk.flags is None:
            screen, view = self._screen, walk.judged(reward, None)
            walk.flags = () if screen is None else _guard(SCREEN, lambda: screen(view))
        return walk.flags

    def _after_flags(self, reward: float, flags: tuple[Flag, ...]) -> float:
        zeroed = any(flag.action == "zero" for flag in flags)
        return min(reward, self._flagged_cap) if zeroed else reward


def _is_pending(member: Screened) -> bool:
    return member.judged.verdicts[-1].reason.startswith(f"{PENDING}:")


def reward_by_gate(screened: Sequence[Screened]) -> Mapping[str, float]:
    """Share of rollouts that ended at each gate, in [0, 1]; `passed` for those that passed all."""
    counts: dict[str, int] = {}
    for item in screened:
        last = item.judged.verdicts[-1]
        key = "passed" if last.passed else last.gate
        counts[key] = counts.get(key, 0) + 1
    return {key: count / len(screened) for key, count in sorted(counts.items())}


def _guard(name: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except RltrainError:
        raise
    except Exception as error:
        raise EnvironmentFault(f"Check {name!r} is broken: it {raised(error)}") from error
