"""A judge that is away is waited for, and its absence is told; a broken one is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rltrain.config.rewards import JudgeConfig
from rltrain.errors import JudgeFault
from rltrain.rewards import LLMJudge
from rltrain.types import Verdict
from tests.rewards.judge_server import JudgeServer, free_port
from tests.rewards.reward_fakes import FakeEnvironment, make_task

TASK = make_task()


def ask(endpoint: str, events: list[tuple[str, str]], **settings: Any) -> Verdict:
    config = {"endpoint": endpoint, "backoff_s": 0.05, "retries": 1, "patience_s": 20, **settings}

    async def scenario() -> Verdict:
        judge = LLMJudge(
            JudgeConfig.model_validate(config),
            FakeEnvironment({}).judge_prompt,
            report=lambda kind, text: events.append((kind, text)),
        )
        try:
            return await judge(TASK, "A")
        finally:
            await judge.aclose()

    return asyncio.run(scenario())


def test_a_judge_that_is_away_longer_than_the_retries_last_is_waited_for(
    server: JudgeServer,
) -> None:
    server.behaviours = ["status:503"] * 4 + ["cut"] * 2 + ["yes"]
    events: list[tuple[str, str]] = []
    assert ask(server.endpoint, events).score == 1.0
    assert len(server.requests) == 7
    assert [kind for kind, _ in events] == ["outage", "outage_over"]
    assert server.endpoint in events[0][1]


def test_patience_with_a_judge_that_is_away_ends_in_a_fault() -> None:
    with pytest.raises(JudgeFault, match=r"no usable verdict after \d+ attempt.*connection failed"):
        ask(f"http://127.0.0.1:{free_port()}/v1", [], patience_s=0.7)


@pytest.mark.parametrize("nonsense", ["maybe", "raw:not json", "Yes, because"])
def test_a_judge_that_answers_nonsense_is_not_waited_for(
    server: JudgeServer, nonsense: str
) -> None:
    server.behaviours = [nonsense]
    events: list[tuple[str, str]] = []
    with pytest.raises(JudgeFault):
        ask(server.endpoint, events)
    assert len(server.requests) == 2 and events == []


def test_a_hiccup_is_not_an_outage(server: JudgeServer) -> None:
    server.behaviours = ["status:500", "yes"]
    events: list[tuple[str, str]] = []
    assert ask(server.endpoint, events).score == 1.0 and events == []
