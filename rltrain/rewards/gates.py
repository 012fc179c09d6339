"""Gates in order: `Episode -> Judged -> Screened`.

    check ── pass ──> check ── pass ──> screen ── pass ──> judge ── pass ──> its score
      └ on_fail         └ on_fail         └ on_fail          └ on_fail

The first failure ends the walk, so that a costly judge never sees what a cheap parser rejected.
Two things happen for *every* rollout, wherever it failed: the detectors run, so that hack rates are
over all rollouts, and the truth is measured, so that the reward can be compared with it. The truth
is never part of the reward.

A wrong answer is a score; a broken part is an exception (`SystemFault`), and no `Screened` is made.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from rltrain.config.rewards import StageConfig
from rltrain.errors import EnvironmentFault, RltrainError, UserError
from rltrain.protocols import Check, Environment
from rltrain.rewards.verdicts import UNPARSED, is_applicable, require_unit
from rltrain.types import Episode, Flag, Judged, Screened, Verdict

T = TypeVar("T")

SCREEN = "screen"
JUDGE = "judge"
REWARD_MODEL = "reward_model"
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
    ) -> None:
        """Resolve every stage now, so that a typing mistake stops the run before it starts.

        Args:
            stages: gates in order; at least one.
            environment: brings the checks, the canonical form and the truth.
            screen: the detectors; needed if `screen` is a stage.
            judge: called with the *canonical* answer; needed if `judge` is a stage.
            reward_model: likewise, for the stage `reward_model`.

        Raises `UserError` for an unknown, repeated or unavailable stage, naming what exists.
        """
        self.environment = environment
        self.stages = tuple(stages)
        self._screen = screen
        self._models = {JUDGE: judge, REWARD_MODEL: reward_model}
        self._checks = dict(environment.checks())
        self._validate()
        # A flagged rollout never earns more than this, whether or not it reached the screen.
        self._flagged_cap = min((s.on_fail for s in self.stages if s.check == SCREEN), default=0.0)

    async def judge_episode(self, episode: Episode) -> Screened:
        """Walk the gates, run the detectors, measure the truth.

        `judged.reward` is `on_fail` of the first failed stage, else the last stage's score.
        `reward` is that after the detectors: a `zero` finding caps it at the screen's `on_fail`
        (0 if there is no such stage). `drop` leaves it and sets `Screened.dropped`.

        Raises `SystemFault` (never a score) if a check, a detector, the truth or the judge broke.
        """
        task, answer, env = episode.task, episode.answer, self.environment
        canonical = _guard("canonical", lambda: env.canonical(task, answer))
        truth = _guard("truth", lambda: env.truth(task, answer))
        walk = _Walk(
            episode, canonical, None if truth is None else require_unit(truth, "Measuring truth")
        )
        reward: float | None = None
        for stage in self.stages:
            started = time.perf_counter()
            verdict = replace(
                await self._verdict(stage.check, walk),
                gate=stage.check,
                wall_s=time.perf_counter() - started,
            )
            carries = verdict.passed and (stage.check == SCREEN or not is_applicable(verdict))
            if carries:
                verdict = replace(verdict, score=walk.score or 0.0)
            require_unit(verdict.score, f"Check {stage.check!r}")
            walk.verdicts.append(verdict)
            if not verdict.passed:
                reward = stage.on_fail
                break
            walk.score = walk.score if carries else verdict.score
        reward = walk.score if reward is None else reward
        if reward is None:
            raise EnvironmentFault("Every gate found itself not applicable, so there is no reward.")
        flags = self._flags(walk, reward)
        return Screened(
            judged=walk.judged(reward, walk.truth),
            flags=flags,
            reward=self._after_flags(reward, flags),
        )

    async def _verdict(self, name: str, walk: _Walk) -> Verdict:
        if name == SCREEN:
            return self._screen_verdict(walk)
        if name in self._models:
            return await self._model_verdict(name, walk)
        check = self._checks[name]
        return await _guard_async(name, lambda: check(walk.episode.task, walk.episode.answer))

    def _screen_verdict(self, walk: _Walk) -> Verdict:
        flags = self._flags(walk, walk.score or 0.0)
        found = [flag.detector for flag in flags if flag.action in BLOCKING]
        reason = f"flagged: {', '.join(found)}" if found else ""
        # Passing the screen earns nothing by itself: the score of the gate before it is carried on.
        return Verdict(gate=SCREEN, passed=not found, score=0.0, reason=reason)

    async def _model_verdict(self, name: str, walk: _Walk) -> Verdict:
        judge, canonical = self._models[name], walk.canonical
        assert judge is not None, "validated at construction"
        if canonical is None:
            # The policy is wrong (no gate before caught it); raw text is never shown to a judge.
            reason = f"{UNPARSED}: the answer has no canonical form to show the judge"
            return Verdict(
                gate=name, passed=False, score=0.0, reason=reason, version=judge.version
            )
        return await _guard_async(name, lambda: judge(walk.episode.task, canonical))

    def _flags(self, walk: _Walk, reward: float) -> tuple[Flag, ...]:
        """Findings of this rollout; the detectors run once. They are not shown the truth."""
        if walk.flags is None:
            screen, view = self._screen, walk.judged(reward, None)
            walk.flags = () if screen is None else _guard(SCREEN, lambda: screen(view))
        return walk.flags

    def _after_flags(self, reward: float, flags: tuple[Flag, ...]) -> float:
        zeroed = any(flag.action == "zero" for flag in flags)
        return min(reward, self._flagged_cap) if zeroed else reward

    def _validate(self) -> None:
        names = [stage.check for stage in self.stages]
        if not names:
            raise UserError("rewards.stages is empty; name at least one check.")
        reserved = sorted({SCREEN, *self._models} & self._checks.keys())
        if reserved:
            raise UserError(
                f"Environment {self.environment.name!r} brings a check named {reserved[0]!r}, "
                f"which is the name of a built-in stage; rename it."
            )
        for name, available in ((SCREEN, self._screen), *self._models.items()):
            if name in names and available is None:
                raise UserError(f"rewards.stages names {name!r}, but no {name} was configured.")
        if set(names) == {SCREEN}:
            raise UserError("rewards.stages has only 'screen', which gives no score; add a check.")
        known = [*self._checks, SCREEN, *self._models]
        for position, name in enumerate(names):
            if name not in known:
                raise UserError(self._unknown(name, known))
            if name in names[:position]:
                raise UserError(f"rewards.stages names {name!r} twice; each gate runs once.")

    def _unknown(self, name: str, known: Sequence[str]) -> str:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return (
            f"rewards.stages: environment {self.environment.name!r} has no check {name!r}.{hint} "
            f"There are: {', '.join(known)}."
        )


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
        raise EnvironmentFault(_broken(name, error)) from error


async def _guard_async(name: str, call: Callable[[], Awaitable[T]]) -> T:
    try:
        return await call()
    except RltrainError:
        raise
    except Exception as error:
        raise EnvironmentFault(_broken(name, error)) from error


def _broken(name: str, error: Exception) -> str:
    return f"Check {name!r} is broken: it raised {type(error).__name__}: {error}"
