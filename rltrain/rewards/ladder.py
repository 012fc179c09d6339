"""The outcomes of a gated reward and what each may pay, worst first. Pure.

    fails gate 1 < fails gate 2 < … < passes: [low, high]

A reward with a band anywhere is a strict ladder: every outcome pays more than the ones below it.
Without bands it is as strict as its values on failure: those that are equal (all 0, say) tell
nothing apart, but none may pay more than a better outcome can.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rltrain.config.rewards import RewardsConfig, StageConfig

SILENT = frozenset({"screen"})
"""Checks that have no score of their own."""
ALL_OR_NOTHING = frozenset({"json_schema", "pydantic"})
ALWAYS_SCORE = frozenset(
    {"json_schema", "pydantic", "program", "judge", "judge_pairwise", "reward_model"}
)
"""Checks that cannot find themselves not applicable."""

Band = tuple[float, float]


def within(band: Band | None, score: float) -> float:
    """A score in [0, 1] in its band; without one, the score itself."""
    if band is None:
        return score
    low, high = band
    return min(high, low + (high - low) * score)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One way for an answer to end."""

    name: str
    """`fails GATE`, or `passes`."""
    low: float
    high: float


def scores(stage: StageConfig, rewards: RewardsConfig) -> Band | None:
    """Least and greatest score with which a check can pass; None if it never passes."""
    if stage.check in ALL_OR_NOTHING:
        return 1.0, 1.0
    if stage.check == "judge":
        return rewards.judge.passing_scores()
    if stage.check == "judge_pairwise":
        return rewards.judge.pass_at, 1.0
    if stage.check == "reward_model":
        return rewards.reward_model.pass_at, 1.0
    if stage.check in ("function", "program"):
        return stage.pass_at, 1.0
    return 0.0, 1.0  # an environment's check says nothing about its scores beforehand


def never_fails(stage: StageConfig, rewards: RewardsConfig) -> bool:
    """Whether the settings let every answer pass. False where nothing is known."""
    if stage.check == "judge":
        return rewards.judge.never_fails()
    if stage.check == "judge_pairwise":
        return rewards.judge.pass_at <= 0
    if stage.check == "reward_model":
        return rewards.reward_model.pass_at <= 0
    return stage.check in ("function", "program") and stage.pass_at <= 0


def paying(rewards: RewardsConfig) -> list[StageConfig]:
    """Stages whose score a passing answer can earn: the last one that has a score, and those before
    it as long as everything after them may find itself not applicable. In order."""
    found: list[StageConfig] = []
    for stage in reversed(rewards.stages):
        if stage.check in SILENT:
            continue
        found.insert(0, stage)
        if stage.check in ALWAYS_SCORE:
            break
    return found


def passing_band(stages: Sequence[StageConfig]) -> Band | None:
    """Band of the last stage that has a score; also of every stage that has no band of its own."""
    return next((stage.band for stage in reversed(stages) if stage.check not in SILENT), None)


def outcomes(rewards: RewardsConfig) -> list[Outcome]:
    """Every failure in the order of the gates, then passing, once per band that it may pay in."""
    found = [
        Outcome(name=f"fails {stage.gate}", low=stage.on_fail, high=stage.on_fail)
        for stage in rewards.stages
    ]
    payers = paying(rewards)
    banded = [stage for stage in payers[:-1] if stage.band]
    for stage in banded:
        found.append(_passes(f"passes, paid by {stage.gate}", stage.band, [stage], rewards))
    rest = [stage for stage in payers if stage not in banded]
    return [*found, _passes("passes", passing_band(rewards.stages), rest, rewards)]


def _passes(
    name: str, band: Band | None, stages: Sequence[StageConfig], rewards: RewardsConfig
) -> Outcome:
    """What a passing answer earns by these stages, bonuses included."""
    kept = 1.0 - sum(part.weight for part in rewards.bonus.values())
    ranges = [scores(stage, rewards) or (0.0, 0.0) for stage in stages] or [(0.0, 0.0)]
    least, most = min(low for low, _ in ranges), max(high for _, high in ranges)
    top = 1.0 if most == 1.0 else kept * most
    return Outcome(name=name, low=within(band, kept * least), high=within(band, top))


def is_strict(rewards: RewardsConfig) -> bool:
    return any(stage.band is not None for stage in rewards.stages)


def overlaps(rewards: RewardsConfig) -> Iterator[tuple[Outcome, Outcome]]:
    """Neighbours of the ladder of which the worse outcome can pay as much as the better one."""
    strict, found = is_strict(rewards), outcomes(rewards)
    for worse, better in itertools.pairwise(found):
        clash = worse.high > better.low
        if worse.name.startswith("passes"):  # one band for several stages is one outcome
            clash = clash and (worse.low, worse.high) != (better.low, better.high)
        elif strict:
            clash = clash or worse.high == better.low
        if clash:
            yield worse, better
