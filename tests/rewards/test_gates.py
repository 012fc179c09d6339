"""The gates stop at the first failure, faults never become rewards, detectors see every rollout."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rltrain.config.rewards import StageConfig
from rltrain.errors import EngineFault, EnvironmentFault, JudgeFault, SystemFault, UserError
from rltrain.rewards import NOT_APPLICABLE, GatedReward, reward_by_gate
from rltrain.types import Flag, Judged, Screened, Verdict
from tests.rewards.reward_fakes import FakeEnvironment, Recorder, failing, make_episode, passing

Unit = st.floats(0, 1)


@dataclass
class FakeScreen:
    """Detectors with given findings, counting what they were shown."""

    actions: tuple[str, ...] = ()
    seen: list[Judged] = field(default_factory=list)

    def __call__(self, judged: Judged) -> tuple[Flag, ...]:
        self.seen.append(judged)
        return tuple(
            Flag(detector=f"d{i}", evidence="e", action=action)
            for i, action in enumerate(self.actions)
        )


def stages(*names: str, on_fail: float = 0.0) -> list[StageConfig]:
    return [StageConfig(check=name, on_fail=on_fail) for name in names]


def run(reward: GatedReward, answer: str = "tag = 'vip'") -> Screened:
    return asyncio.run(reward.judge_episode(make_episode(answer)))


@given(
    outcomes=st.lists(st.tuples(st.booleans(), Unit, Unit), min_size=1, max_size=6),
    actions=st.lists(st.sampled_from(["keep", "zero", "drop"]), max_size=2),
)
@settings(max_examples=150, deadline=None)
def test_gates_stop_exactly_at_the_first_failure_and_its_on_fail_is_the_reward(
    outcomes: list[tuple[bool, float, float]], actions: list[str]
) -> None:
    checks = {
        f"c{i}": passing(score) if ok else failing(score)
        for i, (ok, score, _) in enumerate(outcomes)
    }
    config = [StageConfig(check=f"c{i}", on_fail=floor) for i, (_, _, floor) in enumerate(outcomes)]
    screen, env = FakeScreen(tuple(actions)), FakeEnvironment(checks)
    result = run(GatedReward(config, env, screen))

    failed = next((i for i, (ok, _, _) in enumerate(outcomes) if not ok), None)
    reached = len(outcomes) if failed is None else failed + 1
    assert [len(c.seen) for c in checks.values()] == [1] * reached + [0] * (len(checks) - reached)
    assert [v.gate for v in result.judged.verdicts] == list(checks)[:reached]
    expected = outcomes[-1][1] if failed is None else outcomes[failed][2]
    assert result.judged.reward == expected
    assert result.reward == (0.0 if "zero" in actions else expected)
    assert result.dropped == ("drop" in actions)
    assert len(screen.seen) == 1 and env.truths == 1 and result.judged.truth == 0.25


@given(
    position=st.integers(0, 3),
    where=st.sampled_from(["check", "canonical", "truth", "screen", "judge"]),
    fault=st.sampled_from(
        [EnvironmentFault("db"), JudgeFault("down"), EngineFault("e"), ValueError("bug"),
         AssertionError("bug"), KeyError("k")]
    ),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_no_fault_anywhere_ever_yields_a_screened(
    position: int, where: str, fault: Exception
) -> None:
    checks = {f"c{i}": passing(0.5) for i in range(4)}
    judge, screen = passing(1.0), FakeScreen()
    env = FakeEnvironment(checks, truth=fault if where == "truth" else 0.5)

    def broken(*_: object) -> Any:
        raise fault

    if where == "check":
        checks[f"c{position}"] = Recorder(fault)
    if where == "canonical":
        env.canonical = broken  # type: ignore[method-assign, assignment]
    if where == "judge":
        judge = Recorder(fault)
    names = [*checks, "judge"]
    reward = GatedReward(
        stages(*names),
        env,
        cast(Any, broken) if where == "screen" else screen,
        judge,
    )
    with pytest.raises(SystemFault) as caught:
        run(reward)
    if isinstance(fault, SystemFault):
        assert caught.value is fault
    else:
        name = f"c{position}" if where == "check" else where
        assert isinstance(caught.value, EnvironmentFault) and repr(name) in str(caught.value)
        assert caught.value.__cause__ is fault


def test_a_user_error_inside_a_check_stops_the_run_as_it_is() -> None:
    env = FakeEnvironment({"a": Recorder(UserError("put it right"))})
    with pytest.raises(UserError, match="put it right"):
        run(GatedReward(stages("a"), env))


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.5])
def test_a_score_outside_of_the_unit_interval_is_a_broken_check(score: float) -> None:
    with pytest.raises(EnvironmentFault, match=r"\[0, 1\]"):
        run(GatedReward(stages("a"), FakeEnvironment({"a": passing(score)})))
    with pytest.raises(EnvironmentFault, match="truth"):
        run(GatedReward(stages("a"), FakeEnvironment({"a": passing()}, truth=score)))


@pytest.mark.parametrize(
    ("actions", "reward", "judged_at_all"),
    [(("keep",), 0.9, True), (("zero",), 0.1, False), (("drop",), 0.1, False), ((), 0.9, True)],
)
def test_the_screen_gate_fails_on_zero_and_drop_and_saves_the_judge_call(
    actions: tuple[str, ...], reward: float, judged_at_all: bool
) -> None:
    judge, screen = passing(0.9), FakeScreen(actions)
    config = [*stages("a"), StageConfig(check="screen", on_fail=0.1), *stages("judge")]
    result = run(GatedReward(config, FakeEnvironment({"a": passing(0.3)}), screen, judge))
    assert result.reward == reward and bool(judge.seen) is judged_at_all
    assert len(screen.seen) == 1 and len(result.flags) == len(actions)
    assert result.judged.verdicts[1].passed is judged_at_all


def test_a_screen_in_the_last_place_carries_the_score_of_the_gate_before_it() -> None:
    env = FakeEnvironment({"a": passing(0.3)})
    result = run(GatedReward(stages("a", "screen"), env, FakeScreen()))
    assert result.reward == 0.3 and result.judged.verdicts[-1].score == 0.3


def test_a_flagged_rollout_that_failed_before_the_screen_earns_no_more_than_its_on_fail() -> None:
    env = FakeEnvironment({"a": failing()})
    config = [*stages("a", on_fail=0.2), *stages("screen", on_fail=0.05)]
    assert run(GatedReward(config, env, FakeScreen(("zero",)))).reward == 0.05
    assert run(GatedReward(config, env, FakeScreen(("keep",)))).reward == 0.2


def test_detectors_are_not_shown_the_truth_and_run_once_even_if_an_early_gate_failed() -> None:
    screen = FakeScreen()
    run(GatedReward(stages("a", "screen"), FakeEnvironment({"a": failing()}), screen))
    assert [j.truth for j in screen.seen] == [None]
    assert [v.gate for v in screen.seen[0].verdicts] == ["a"]


def test_the_judge_sees_the_canonical_answer_and_checks_see_the_raw_one() -> None:
    check, judge = passing(), passing()
    run(GatedReward(stages("a", "judge"), FakeEnvironment({"a": check}), None, judge), "tag")
    assert check.seen == ["tag"] and judge.seen == ["TAG"]


def test_an_answer_without_canonical_form_fails_the_judge_gate_without_a_call() -> None:
    judge = passing()
    config = stages("judge", on_fail=0.05)
    result = run(GatedReward(config, FakeEnvironment({}), None, judge), "???")
    assert judge.seen == [] and result.reward == 0.05 and result.judged.canonical is None
    assert result.judged.verdicts[0].reason.startswith("unparsed")


def test_a_gate_that_is_not_applicable_leaves_the_score_before_it() -> None:
    env = FakeEnvironment({"a": passing(0.6), "b": passing(0.0, f"{NOT_APPLICABLE}: none")})
    result = run(GatedReward(stages("a", "b"), env))
    assert result.reward == 0.6 and result.judged.verdicts[1].score == 0.6


def test_if_no_gate_is_applicable_there_is_a_fault_and_no_reward() -> None:
    env = FakeEnvironment({"b": passing(0.0, NOT_APPLICABLE)})
    with pytest.raises(EnvironmentFault, match="not applicable"):
        run(GatedReward(stages("b", "screen"), env, FakeScreen()))


def test_verdicts_are_timed_named_by_their_stage_and_keep_the_checks_version() -> None:
    verdict = run(GatedReward(stages("a"), FakeEnvironment({"a": passing()}))).judged.verdicts[0]
    assert verdict.gate == "a" and verdict.version == "7" and 0 < verdict.wall_s < 1


def test_truth_that_cannot_be_measured_stays_none() -> None:
    assert (
        run(GatedReward(stages("a"), FakeEnvironment({"a": passing()}, None))).judged.truth is None
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda e: GatedReward(stages("syntxa"), e),
            "Did you mean 'syntax'.*syntax, screen, judge",
        ),
        (lambda e: GatedReward(stages("syntax", "syntax"), e), "twice"),
        (lambda e: GatedReward(stages("screen", "syntax"), e), "no screen"),
        (lambda e: GatedReward(stages("judge"), e), "no judge"),
        (lambda e: GatedReward(stages("screen"), e, FakeScreen()), "gives no score"),
        (lambda e: GatedReward([], e), "empty"),
        (lambda e: GatedReward(stages("a"), FakeEnvironment({"judge": passing()})), "built-in"),
    ],
)
def test_a_wrong_stage_list_is_refused_at_construction(
    build: Callable[[FakeEnvironment], GatedReward], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build(FakeEnvironment({"syntax": passing()}))


def test_rollouts_are_counted_by_the_gate_that_ended_them() -> None:
    good = run(GatedReward(stages("a"), FakeEnvironment({"a": passing()})))
    bad = run(GatedReward(stages("a"), FakeEnvironment({"a": failing()})))
    assert reward_by_gate([good, bad, bad, bad]) == {"a": 0.75, "passed": 0.25}


def test_a_cancelled_rollout_is_cancelled_and_not_turned_into_a_fault() -> None:
    async def scenario() -> None:
        env = FakeEnvironment({"a": Hang()})
        task = asyncio.create_task(GatedReward(stages("a"), env).judge_episode(make_episode()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


class Hang(Recorder):
    def __init__(self) -> None:
        super().__init__(ValueError())

    async def __call__(self, task: object, answer: str) -> Verdict:
        await asyncio.sleep(60)
        raise AssertionError
