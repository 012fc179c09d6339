"""Worse outcomes pay less, whatever the scores, the bonuses and the detectors say."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rltrain.config.rewards import BonusConfig, JudgeConfig, RewardsConfig, StageConfig
from rltrain.errors import EnvironmentFault, UserError
from rltrain.rewards import NOT_APPLICABLE, GatedReward
from rltrain.rewards.bonus import BONUSES, Bonuses
from rltrain.rewards.ladder import outcomes
from rltrain.rewards.lint import problems
from rltrain.types import Episode, Screened, Verdict
from tests.rewards.reward_fakes import FakeEnvironment, Recorder, failing, make_episode, passing

Unit = st.floats(0, 1)
Weights = st.lists(st.floats(0.01, 0.3), max_size=3)
LENGTHS = ("brevity", "turns", "latency")


def bonuses(weights: list[float]) -> dict[str, BonusConfig]:
    return {n: BonusConfig(weight=w) for n, w in zip(LENGTHS, weights, strict=False)}


@st.composite
def ladders(draw: st.DrawFn) -> RewardsConfig:
    """Any ladder that the linter lets pass, strict or not."""
    count = draw(st.integers(1, 4))
    floors = sorted(draw(st.lists(st.floats(0, 0.9), min_size=count, max_size=count)))
    banded = draw(st.booleans())
    low, high = sorted(draw(st.tuples(Unit, Unit)))
    band = (low, high) if banded else None
    stages = tuple(
        StageConfig(
            check=f"c{i}",
            on_fail=floor if banded else 0.0,
            band=band if i == count - 1 else None,
        )
        for i, floor in enumerate(floors)
    )
    rewards = RewardsConfig(stages=stages, bonus=bonuses(draw(Weights)))
    assume(not problems(rewards, 120.0))
    return rewards


def walk(
    rewards: RewardsConfig, failed: int | None, score: float, episode: Episode, na: bool = False
) -> Screened:
    """The answer fails gate number `failed`, or passes with `score`. `na`: the last gate has
    nothing to say, so that the score of the one before it is carried."""
    names = [stage.check for stage in rewards.stages]
    checks: dict[str, Recorder] = {name: passing(score) for name in names}
    if na and len(names) > 1:
        checks[names[-1]] = passing(0.0, NOT_APPLICABLE)
    if failed is not None:
        checks[names[failed]] = failing(score)
    env = FakeEnvironment(checks)
    return asyncio.run(
        GatedReward(rewards.stages, env, bonus=rewards.bonus).judge_episode(episode)
    )


def said(characters: int) -> Episode:
    return make_episode("x" * characters)


@given(ladders(), st.data(), Unit, Unit, st.integers(0, 900), st.integers(0, 900), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_worse_outcome_never_pays_more_and_less_where_there_is_a_band(
    rewards: RewardsConfig, data: st.DataObject, one: float, other: float, a: int, b: int, na: bool
) -> None:
    count = len(rewards.stages)
    worse = data.draw(st.integers(0, count - 1))
    better = data.draw(st.integers(worse + 1, count))
    low = walk(rewards, worse, one, said(a)).reward
    high = walk(rewards, better if better < count else None, other, said(b), na).reward
    assert low <= high
    if any(stage.band for stage in rewards.stages):
        assert low < high
    expected = outcomes(rewards)
    assert low == expected[worse].low == expected[worse].high
    assert expected[better].low <= high <= expected[better].high


@given(ladders(), Unit, Unit, st.integers(0, 900), st.integers(0, 900))
@settings(max_examples=200, deadline=None)
def test_among_passing_answers_a_bonus_never_lifts_a_lower_score_over_a_higher_one(
    rewards: RewardsConfig, one: float, other: float, a: int, b: int
) -> None:
    low, high = sorted((one, other))
    worse = walk(rewards, None, low, said(a)).reward
    assert worse <= walk(rewards, None, high, said(b)).reward or low == high
    best = [walk(rewards, None, 1.0, said(n)).reward for n in sorted((a, b))]
    assert best[0] >= best[1] >= walk(rewards, None, low, said(0)).reward or low == 1.0


def test_a_band_maps_the_score_and_a_carried_score_lands_in_the_passing_band_too() -> None:
    stages = (
        StageConfig(check="a", on_fail=0.1), StageConfig(check="b", on_fail=0.2, band=(0.5, 0.9)),
    )  # fmt: skip
    rewards = RewardsConfig(stages=stages)
    assert walk(rewards, None, 0.25, said(3)).reward == pytest.approx(0.6)
    assert walk(rewards, None, 0.25, said(3), na=True).reward == pytest.approx(0.6)
    assert walk(rewards, 1, 0.25, said(3)).reward == 0.2
    verdicts = walk(rewards, None, 0.25, said(3)).judged.verdicts
    assert [verdict.score for verdict in verdicts] == [0.25, 0.25]  # as the check said


def test_bonuses_are_what_their_formulas_say() -> None:
    episode = said(100)
    turn = replace(episode.turns[0], text="x" * 50, completion_ids=(1,) * 90)
    long = replace(episode, turns=(turn, turn))
    assert BONUSES["brevity"](long, limit=400) == pytest.approx(0.75)
    assert BONUSES["brevity"](said(900)) == 0.0
    assert BONUSES["turns"](long, limit=4) == pytest.approx(0.75)
    assert BONUSES["latency"](long, limit_s=8, token_s=0.02, turn_s=0.2) == pytest.approx(0.5)
    parts = Bonuses({"brevity": BonusConfig(weight=0.2, args={"limit": 400})})
    assert parts.earned(1.0, long) == pytest.approx(0.8 + 0.2 * 0.75)
    assert parts.earned(0.5, long) == pytest.approx(0.4)


def nonsense(episode: Episode, *, value: Any = float("nan")) -> Any:
    if value == "raise":
        raise RuntimeError("no")
    return value


@pytest.mark.parametrize("value", [float("nan"), 2.0, -0.1, "0.5", None, "raise"])
def test_a_bonus_that_gives_no_number_is_a_fault_that_names_it(value: Any) -> None:
    part = BonusConfig(weight=0.1, function=f"{__name__}:nonsense", args={"value": value})
    rewards = RewardsConfig(stages=(StageConfig(check="a"),), bonus={"mine": part})
    with pytest.raises(EnvironmentFault, match="Bonus 'mine'"):
        walk(rewards, None, 1.0, said(1))
    assert walk(rewards, 0, 1.0, said(1)).reward == 0.0  # nothing to ask about


def test_a_bonus_that_does_not_exist_or_takes_no_such_argument_is_the_users_error() -> None:
    with pytest.raises(UserError, match="'breviti' is not one of brevity, turns, latency"):
        Bonuses({"breviti": BonusConfig(weight=0.1)})
    with pytest.raises(UserError, match=r"rewards\.bonus\.brevity\.args: .*'longest'"):
        Bonuses({"brevity": BonusConfig(weight=0.1, args={"longest": 3})})


def test_a_judges_outcomes_follow_its_verdicts() -> None:
    judge = JudgeConfig(verdicts={"good": 1.0, "fair": 0.6, "bad": 0.0})
    stages = (StageConfig(check="a", on_fail=0.1), StageConfig(check="judge", on_fail=0.2))
    rewards = RewardsConfig(stages=stages, judge=judge)
    assert [(o.name, o.low, o.high) for o in outcomes(rewards)] == [
        ("fails a", 0.1, 0.1), ("fails judge", 0.2, 0.2), ("passes", 0.6, 1.0),
    ]  # fmt: skip
    assert problems(rewards, 120.0) == []


def test_a_verdict_keeps_the_configured_version_of_the_validator() -> None:
    check = Recorder(Verdict(gate="x", passed=True, score=1.0, version="7"))
    config = [StageConfig(check="a", validator_version="2026-11")]
    gates = GatedReward(config, FakeEnvironment({"a": check}))
    result = asyncio.run(gates.judge_episode(make_episode()))
    assert result.judged.verdicts[0].version == "2026-11"
