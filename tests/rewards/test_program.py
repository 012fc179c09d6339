"""Programs are run in the real sandbox: what they do is a score, what the sandbox does is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rltrain.config.rewards import StageConfig
from rltrain.errors import UserError
from rltrain.rewards import GatedReward
from rltrain.types import Screened
from tests.rewards.reward_fakes import FakeEnvironment, make_episode, make_task

TASK = make_task(
    "double it",
    tests=[{"stdin": "2\n", "stdout": "4\n"}, {"stdin": "-3", "stdout": "-6"}],
)
RIGHT = "print(2 * int(input()))"


def judge(answer: str, **settings: Any) -> Screened:
    limits = {"time_s": 2.0, "memory_mb": 128}
    stage = StageConfig.model_validate(
        {"check": "program", "on_fail": 0.1, "band": (0.5, 1.0), "sandbox": limits, **settings}
    )
    return asyncio.run(
        GatedReward([stage], FakeEnvironment({})).judge_episode(make_episode(answer, TASK))
    )


def test_the_score_is_the_share_of_tests_with_the_right_output() -> None:
    assert judge(RIGHT).reward == 1.0
    half = judge("print(4)")
    assert half.reward == pytest.approx(0.75)
    assert half.judged.verdicts[0].reason == "program: 1 of 2 tests; first: wrong output"
    assert judge("print(4)", pass_at=1.0).reward == 0.1
    assert judge(f"So:\n```python\n{RIGHT}\n```", extract="block").reward == 1.0
    assert '"rule": "block"' in judge(RIGHT, extract="block").judged.verdicts[0].reason


@pytest.mark.parametrize(
    ("answer", "how"),
    [
        ("import sys; print(4); sys.exit(3)", "exit 3"),
        ("while True: pass", "time"),
        ("not python", "exit 1"),
        ("", "wrong output"),
    ],
)
def test_a_program_that_fails_or_hangs_earns_the_value_on_failure(answer: str, how: str) -> None:
    result = judge(answer, sandbox={"time_s": 0.5, "memory_mb": 128})
    assert result.reward == 0.1
    assert result.judged.verdicts[0].reason.endswith(f"0 of 2 tests; first: {how}")


def test_a_task_without_tests_is_the_users_error() -> None:
    with pytest.raises(UserError, match="under 'cases'; set `tests`"):
        judge(RIGHT, tests="cases")
