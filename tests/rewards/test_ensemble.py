"""Several judges over real HTTP: rules, quorum, disagreement, and keys that stay apart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from rltrain.config.judge import JudgeConfig
from rltrain.errors import JudgeFault, UserError
from rltrain.rewards.ensemble import Vote, combine
from rltrain.rewards.judges import Judges, make_judges
from rltrain.types import Verdict
from tests.rewards.judge_server import JudgeServer
from tests.rewards.reward_fakes import FakeEnvironment, make_task

TASK = make_task()


def votes(*scores: float, weights: tuple[float, ...] = ()) -> list[Vote]:
    each = weights or (1.0,) * len(scores)
    return [Vote(passed=s >= 0.5, score=s, weight=w) for s, w in zip(scores, each, strict=True)]


@pytest.mark.parametrize(
    ("rule", "given", "expected"),
    [
        ("majority", votes(1, 1, 0), (True, 1.0)),
        ("majority", votes(1, 0), (False, 0.0)),
        ("majority", votes(1, 0, 0, weights=(3, 1, 1)), (True, 1.0)),
        ("mean", votes(1, 0.5, 0), (True, 0.5)),
        ("mean", votes(1, 0, weights=(1, 3)), (False, 0.25)),
        ("min", votes(1, 0.6), (True, 0.6)),
        ("min", votes(1, 0.4), (False, 0.4)),
        ("unanimous", votes(1, 0.5), (True, 1.0)),
        ("unanimous", votes(1, 1, 0.4), (False, 0.0)),
    ],
)
def test_the_rules(rule: Any, given: list[Vote], expected: tuple[bool, float]) -> None:
    assert combine(given, rule, 0.5) == expected


def ensemble(server: JudgeServer, models: Mapping[str, str], **settings: Any) -> Judges:
    """Judges by model name, each with a behaviour of its own."""
    server.decide = lambda request: models[request["model"]]
    config = {"endpoint": server.endpoint, "retries": 0, "patience_s": 0, "backoff_s": 0.001,
              "timeout_s": 5, "ensemble": [{"model": name} for name in models],
              **settings}  # fmt: skip
    return make_judges(JudgeConfig.model_validate(config), FakeEnvironment({}).judge_prompt)


def use(judge: Judges, *answers: str) -> tuple[list[Verdict | JudgeFault], dict[str, float]]:
    async def scenario() -> list[Verdict | JudgeFault]:
        said: list[Verdict | JudgeFault] = []
        try:
            for answer in answers:
                try:
                    said.append(await judge(TASK, answer))
                except JudgeFault as fault:
                    said.append(fault)
            return said
        finally:
            await judge.aclose()

    return asyncio.run(scenario()), judge.metrics()


def test_the_members_vote_and_their_disagreement_is_measured(server: JudgeServer) -> None:
    (first, again), metrics = use(ensemble(server, {"a": "yes", "b": "yes", "c": "no"}), "A", "A")
    assert isinstance(first, Verdict) and isinstance(again, Verdict)
    assert (first.passed, first.score, first.reason) == (True, 1.0, "majority: 1, 1, 0")
    assert not first.cached and again.cached and len(server.requests) == 3
    assert metrics["judge/compared"] == metrics["judge/disagreed"] == 2
    assert metrics["judge/disagreement_rate"] == 1.0 and metrics["judge/calls"] == 3


def test_a_member_that_faults_is_left_out_only_if_a_quorum_remains(server: JudgeServer) -> None:
    models = {"a": "yes", "b": "nonsense", "c": "yes"}
    (lost,), metrics = use(ensemble(server, models), "A")
    assert isinstance(lost, JudgeFault)
    assert "2 of 3 judges answered, fewer than the quorum of 3" in str(lost)
    assert "nonsense" in str(lost) and metrics["judge/no_quorum"] == 1

    (kept,), metrics = use(ensemble(server, models, quorum=2), "A")
    assert isinstance(kept, Verdict) and kept.reason == "majority: 1, fault, 1"
    assert metrics["judge/left_out"] == 1 and metrics["judge/faults"] == 1

    (lost,), _ = use(ensemble(server, {"a": "status:500", "b": "no!"}, quorum=1), "A")
    assert isinstance(lost, JudgeFault)


def test_a_member_that_refuses_us_stops_the_run(server: JudgeServer) -> None:
    judge = ensemble(server, {"a": "slow:2:yes", "b": "status:401"}, quorum=1)
    with pytest.raises(UserError, match="HTTP 401"):
        use(judge, "A")


def test_a_member_takes_what_it_does_not_say_from_the_judge(server: JudgeServer) -> None:
    judge = ensemble(
        server, {"a": "good", "b": "yes"}, rule="mean", version="3", pass_at=0.7,
        ensemble=[{"model": "a", "verdicts": {"good": 0.8, "bad": 0}, "weight": 3}, {"model": "b"}],
    )  # fmt: skip
    (verdict,), _ = use(judge, "A")
    assert isinstance(verdict, Verdict)
    assert verdict.score == pytest.approx(0.85) and verdict.version == "mean(3|3)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ensemble": [{"model": "a"}], "quorum": 2}, "quorum is 2"),
        ({"quorum": 2}, "quorum is 2"),
        ({"ensemble": [{}, {"endpoint": "http://h/v1"}]}, "send the server's token out"),
        ({"ensemble": [{"api_key_env": "OTHER"}]}, "leave out its api_key_env"),
        ({"ensemble": [{"weight": 0}]}, "greater than 0"),
        ({"rule": "most"}, "majority"),
        ({"cache_file": "x.sqlite"}, "cache_file needs an endpoint"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JudgeConfig.model_validate(settings)


def test_our_own_server_is_started_if_any_member_needs_it() -> None:
    away = {"endpoint": "http://h/v1"}
    assert JudgeConfig().own_server and not JudgeConfig.model_validate(away).own_server
    both = {"ensemble": [{}, {**away, "api_key_env": "OTHER_KEY"}]}
    assert JudgeConfig.model_validate(both).own_server
    assert not JudgeConfig.model_validate({"ensemble": [away]}).own_server
