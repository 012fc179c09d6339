"""Deadlines, memory and reward functions: a fault stays a fault, a verdict stays the verdict."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rltrain.config.rewards import StageConfig
from rltrain.errors import EnvironmentFault, JudgeFault, SystemFault
from rltrain.rewards import GatedReward, TRLCheck
from rltrain.rewards.memory import VerdictMemory
from rltrain.rewards.savings import savings
from rltrain.types import Group, Task, Verdict
from tests.rewards.reward_fakes import (
    FakeEnvironment,
    Recorder,
    failing,
    make_episode,
    make_task,
    passing,
)


class Scripted:
    """Says what the answer asks for: `fault`, `bug` or a score; counts how often it is asked."""

    version = "3"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, task: Task, answer: str) -> Verdict:
        self.asked.append(answer)
        await asyncio.sleep(0)
        if answer == "fault":
            raise EnvironmentFault("down")
        if answer == "bug":
            raise ValueError("bug")
        score = float(answer)
        return Verdict(gate="x", passed=score > 0.3, score=score, reason=f"{task.id} {answer}")


Answers = st.lists(
    st.tuples(st.sampled_from(["t1", "t2"]), st.sampled_from(["fault", "bug", "0.1", "0.4", "1"])),
    min_size=1, max_size=25,
)  # fmt: skip


@given(Answers, st.booleans())
@settings(max_examples=100, deadline=None)
def test_memory_changes_no_verdict_and_no_fault_is_remembered(
    answers: list[tuple[str, str]], at_once: bool
) -> None:
    async def judge(gates: GatedReward, task: str, answer: str) -> Any:
        try:
            result = await gates.judge_episode(make_episode(answer, make_task(task)))
        except SystemFault as fault:
            return str(fault)
        kept = [replace(v, wall_s=0.0, cached=False) for v in result.judged.verdicts]
        return result.reward, kept

    async def all_of(cache: bool) -> tuple[list[Any], list[str]]:
        check = Scripted()
        config = [StageConfig(check="a", on_fail=0.0, cache=cache)]
        gates = GatedReward(config, FakeEnvironment({"a": check}))
        asked = [judge(gates, *pair) for pair in answers]
        said = await asyncio.gather(*asked) if at_once else [await each for each in asked]
        return list(said), check.asked

    (plain, every), (remembered, fewer) = asyncio.run(all_of(False)), asyncio.run(all_of(True))
    assert remembered == plain and len(every) == len(answers)
    good = {pair for pair in answers if pair[1] not in ("fault", "bug")}
    assert len([answer for answer in fewer if answer not in ("fault", "bug")]) == len(good)
    if not at_once:  # every fault was asked for again
        assert len(fewer) == len(good) + len([p for p in answers if p[1] in ("fault", "bug")])


def test_memory_is_by_what_the_check_sees() -> None:
    raw, canonical = passing(), passing()
    config = [
        StageConfig(check="raw", cache=True), StageConfig(check="c", cache=True, sees="canonical"),
    ]  # fmt: skip
    gates = GatedReward(config, FakeEnvironment({"raw": raw, "c": canonical}))

    async def both() -> list[bool]:
        results = [await gates.judge_episode(make_episode(text)) for text in ("tag", "TAG")]
        return [verdict.cached for result in results for verdict in result.judged.verdicts]

    assert asyncio.run(both()) == [False, False, False, True]
    assert raw.seen == ["tag", "TAG"] and canonical.seen == ["TAG"]


def test_a_check_that_sees_canonical_answers_fails_unasked_what_has_none() -> None:
    check = passing()
    config = [StageConfig(check="c", sees="canonical", on_fail=0.1)]
    result = asyncio.run(
        GatedReward(config, FakeEnvironment({"c": check})).judge_episode(make_episode("???"))
    )
    assert result.reward == 0.1 and check.seen == []
    assert result.judged.verdicts[0].reason.startswith("unparsed")


def test_memory_forgets_what_was_used_longest_ago() -> None:
    memory, asked = VerdictMemory(most=2), []

    async def ask(name: str) -> Verdict:
        async def say() -> Verdict:
            asked.append(name)
            return Verdict(gate="x", passed=True, score=1.0, reason=name)

        return await memory.get(("t", name), say)

    async def scenario() -> None:
        for name in ("a", "b", "a", "c", "a", "b"):
            assert (await ask(name)).reason == name

    asyncio.run(scenario())
    assert asked == ["a", "b", "c", "b"]


def test_an_asker_that_is_cancelled_costs_the_others_nothing() -> None:
    async def scenario() -> Verdict:
        memory, gate = VerdictMemory(), asyncio.Event()

        async def ask() -> Verdict:
            await gate.wait()
            return Verdict(gate="x", passed=True, score=1.0)

        first, second = (asyncio.create_task(memory.get(("t", "a"), ask)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.wait_for(second, 5)

    assert asyncio.run(scenario()).passed


class Slow(Recorder):
    def __init__(self, *, blocks: bool) -> None:
        super().__init__(Verdict(gate="x", passed=True, score=1.0))
        self.blocks = blocks

    async def __call__(self, task: Task, answer: str) -> Verdict:
        if self.blocks:
            time.sleep(0.03)
        else:
            await asyncio.sleep(30)
        return await super().__call__(task, answer)


@pytest.mark.parametrize("blocks", [False, True])
def test_no_answer_within_the_deadline_is_a_fault_that_names_the_gate(blocks: bool) -> None:
    config = [StageConfig(check="a", timeout_s=0.01)]
    gates = GatedReward(config, FakeEnvironment({"a": Slow(blocks=blocks)}))
    with pytest.raises(EnvironmentFault, match=r"'a' gave no answer within .* 0\.01 s"):
        asyncio.run(gates.judge_episode(make_episode()))
    judged = GatedReward(
        [StageConfig(check="judge", timeout_s=0.01)], FakeEnvironment({}), None, Slow(blocks=blocks)
    )
    with pytest.raises(JudgeFault, match="'judge' gave no answer"):
        asyncio.run(judged.judge_episode(make_episode()))


def test_a_timeout_of_the_checks_own_is_not_mistaken_for_the_stages() -> None:
    config = [StageConfig(check="a", timeout_s=60)]
    gates = GatedReward(config, FakeEnvironment({"a": Recorder(TimeoutError("socket"))}))
    with pytest.raises(EnvironmentFault, match="raised TimeoutError: socket"):
        asyncio.run(gates.judge_episode(make_episode()))


def sleepy(prompts: Any, completions: Any, seconds: float, **_: Any) -> list[float]:
    time.sleep(seconds)
    return [1.0]


def test_a_function_that_hangs_is_given_up_on_and_the_loop_goes_on() -> None:
    def stage(seconds: float) -> StageConfig:
        return StageConfig(
            check="function", function=f"{__name__}:sleepy", args={"seconds": seconds},
            timeout_s=0.2 if seconds else 30,
        )  # fmt: skip

    hangs, quick = (GatedReward([stage(s)], FakeEnvironment({})) for s in (20.0, 0.0))

    async def scenario() -> float:
        lost = asyncio.create_task(hangs.judge_episode(make_episode()))
        reward = (await quick.judge_episode(make_episode())).reward
        with pytest.raises(EnvironmentFault, match="'function' gave no answer"):
            await asyncio.wait_for(lost, 10)
        return reward

    assert asyncio.run(scenario()) == 1.0


Odd = st.one_of(
    st.floats(), st.integers(-5, 5), st.none(), st.text(max_size=5), st.binary(max_size=3),
    st.complex_numbers(), st.lists(st.floats(), max_size=2), st.just({}), st.booleans(),
)  # fmt: skip


@given(Odd)
@settings(max_examples=200, deadline=None)
def test_nothing_but_a_number_of_a_reward_function_becomes_a_reward(value: Any) -> None:
    def odd(prompts: Any, completions: Any, **_: Any) -> Any:
        return [value]

    gates = GatedReward(
        [StageConfig(check="before"), StageConfig(check="f")],
        FakeEnvironment({"before": passing(0.75), "f": TRLCheck(odd, low=-5, high=5)}),
    )
    number = isinstance(value, int | float) and math.isfinite(value)
    if number and not -5 <= value <= 5:
        return  # the user's error, tested with the adapter
    if value is None:
        assert asyncio.run(gates.judge_episode(make_episode())).reward == 0.75
    elif number:
        reward = asyncio.run(gates.judge_episode(make_episode())).reward
        score = (value + 5) / 10
        assert reward == (score if score >= 0.5 else 0.0)
    else:
        with pytest.raises(EnvironmentFault, match="'odd'"):
            asyncio.run(gates.judge_episode(make_episode()))


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(1), TimeoutError()])
def test_an_exception_in_a_function_is_a_fault_that_names_it(error: BaseException) -> None:
    def thrower(prompts: Any, completions: Any, **_: Any) -> list[float]:
        raise error

    check = TRLCheck(thrower)
    for threaded in (False, True):
        check.threaded = threaded
        with pytest.raises(EnvironmentFault, match=f"'thrower'.*{type(error).__name__}"):
            asyncio.run(check(make_task(), "x"))


def test_a_functions_own_arguments_win_over_a_tasks_columns() -> None:
    check = TRLCheck.load(f"{__name__}:sleepy", {"seconds": 0.0})
    assert asyncio.run(check(make_task(seconds=99.0), "x")).score == 1.0


def test_what_the_order_saves_is_counted_by_cost_and_by_seconds() -> None:
    config = [StageConfig(check="a", cost=1.0), StageConfig(check="b", cost=10.0, cache=True)]
    checks = {"a": passing(), "b": passing()}
    gates = GatedReward(config, FakeEnvironment(checks))

    async def judge() -> Group:
        members = [await gates.judge_episode(make_episode("same")) for _ in range(2)]
        checks["a"].outcome = failing().outcome
        members += [await gates.judge_episode(make_episode("other")) for _ in range(3)]
        return Group(lease=1, task=make_task(), members=tuple(members))

    group = asyncio.run(judge())
    found = savings(config, [group])
    assert found["cost/asked"] == 5 * 1 + 10 and found["cost/saved"] == 4 * 10
    asked = [v for m in group.members for v in m.judged.verdicts if not v.cached]
    assert found["time/gates_s"] == pytest.approx(sum(v.wall_s for v in asked))
    one = next(v.wall_s for v in asked if v.gate == "b")
    assert found["time/gates_saved_s"] == pytest.approx(3 * one)
    assert savings(config, []) == {}
    free = savings([StageConfig(check="a"), StageConfig(check="b")], [group])
    assert set(free) == {"time/gates_s", "time/gates_saved_s"}
