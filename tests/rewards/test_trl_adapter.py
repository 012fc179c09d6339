"""A TRL reward function behaves as a gate: same arguments, None carried, nonsense is a fault."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from trl.rewards import think_format_reward

from rltrain.config.rewards import StageConfig
from rltrain.errors import EnvironmentFault, UserError
from rltrain.rewards import GatedReward, TRLCheck
from rltrain.types import Verdict
from tests.rewards.reward_fakes import FakeEnvironment, make_episode, make_task, passing

TASK = make_task("2 + 2?", solution="4")


def call(check: TRLCheck, answer: str = "4") -> Verdict:
    return asyncio.run(check(TASK, answer))


def constant(value: Any) -> Any:
    def reward(prompts: Any, completions: Any, **columns: Any) -> Any:
        return value

    return reward


def test_a_function_gets_trls_arguments_for_a_batch_of_one() -> None:
    seen: dict[str, Any] = {}

    def exact(
        prompts: list[Any], completions: list[Any], solution: list[str], **rest: Any
    ) -> list[float]:
        seen.update(prompts=prompts, completions=completions, rest=rest)
        rest["log_metric"]("x", 1.0)
        return [float(c[0]["content"] == s) for c, s in zip(completions, solution, strict=True)]

    check = TRLCheck(exact)
    assert call(check).score == 1.0 and not call(check, "5").passed
    assert seen["prompts"] == [[{"role": "user", "content": "2 + 2?"}]]
    assert seen["completions"] == [[{"role": "assistant", "content": "5"}]]


def test_plain_text_and_async_functions_work_too() -> None:
    async def length(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        await asyncio.sleep(0)
        assert prompts == ["2 + 2?"]
        return [len(completions[0]) / 10]

    assert call(TRLCheck(length, conversational=False), "12345").score == 0.5


def test_a_reward_is_mapped_from_its_range_onto_the_unit_interval() -> None:
    verdict = call(TRLCheck(constant([0.0]), low=-1, high=1, pass_at=0.6, version="2"))
    assert (verdict.score, verdict.passed, verdict.version) == (0.5, False, "2")
    with pytest.raises(UserError, match=r"returned 2, outside of \[-1, 1\]"):
        call(TRLCheck(constant([2]), low=-1, high=1))
    with pytest.raises(UserError, match="low < high"):
        TRLCheck(constant([0]), low=1, high=1)


@pytest.mark.parametrize("value", [[], [1.0, 1.0], 1.0, "1", None, [float("nan")]])
def test_what_is_not_one_reward_is_a_fault(value: Any) -> None:
    with pytest.raises(EnvironmentFault):
        call(TRLCheck(constant(value)))


def test_none_passes_the_gate_and_carries_the_score_before_it() -> None:
    env = FakeEnvironment({"a": passing(0.7), "trl": TRLCheck(constant([None]))})
    gates = GatedReward([StageConfig(check="a"), StageConfig(check="trl")], env)
    result = asyncio.run(gates.judge_episode(make_episode()))
    assert result.reward == 0.7 and result.judged.verdicts[1].reason.startswith("not_applicable")


def test_an_async_function_may_say_none_and_a_callable_object_may_be_async() -> None:
    class Picky:
        """No `__name__`, and a coroutine behind `__call__`."""

        async def __call__(self, prompts: Any, completions: Any, **_: Any) -> list[float | None]:
            await asyncio.sleep(0)
            return [None if "?" in completions[0][0]["content"] else 0.25]

    assert call(TRLCheck(Picky())).score == 0.25
    silent = call(TRLCheck(Picky()), "4?")
    assert silent.passed and silent.reason == "not_applicable: Picky returned None"


def test_a_reward_function_of_trl_itself_is_a_gate_as_it_is() -> None:
    check = TRLCheck(think_format_reward)
    good = call(check, "<think>two and two</think>4")
    assert (good.score, good.passed, good.gate) == (1.0, True, "think_format_reward")
    assert not call(check, "4").passed


def test_an_exception_of_the_function_is_an_environment_fault_that_names_it() -> None:
    def broken(prompts: Any, completions: Any, **_: Any) -> list[float]:
        raise RuntimeError("no")

    gates = GatedReward([StageConfig(check="trl")], FakeEnvironment({"trl": TRLCheck(broken)}))
    with pytest.raises(EnvironmentFault, match=r"'broken'.*RuntimeError"):
        asyncio.run(gates.judge_episode(make_episode()))
