"""Comparisons in both orders over real HTTP: what is right, what is biased, and who meets whom."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rltrain.algo.advantages import GREEDY
from rltrain.build import lint_rewards
from rltrain.config.compose import load_config
from rltrain.config.judge import JudgeConfig
from rltrain.config.rewards import DetectorsConfig, StageConfig
from rltrain.config.rollout import RolloutConfig
from rltrain.errors import EnvironmentFault, JudgeFault, SystemFault, UserError
from rltrain.rewards import GatedReward
from rltrain.rewards.judges import make_judges, pairwise_check
from rltrain.rewards.pairwise import (
    GroupCheck,
    PairwiseCheck,
    PairwiseJudge,
    flip_rate,
    schedule,
    win_rates,
)
from rltrain.rollout.collect import Collector
from rltrain.types import Fault, Screened, Task
from tests.rewards.judge_server import JudgeServer
from tests.rewards.reward_fakes import FakeEnvironment, make_episode, make_task, passing

TASK = make_task(best="5")


def shown(request: dict[str, Any]) -> tuple[str, str]:
    """Answers A and B of a request."""
    text = request["messages"][1]["content"]
    first, second = re.findall(r"BEGIN ANSWER [AB] \w+\n\| (.*)\nEND", text)
    return first, second


def larger(request: dict[str, Any]) -> str:
    first, second = (float(text) for text in shown(request))
    return "tie" if first == second else "A" if first > second else "B"


def use(
    server: JudgeServer, what: Callable[[PairwiseJudge], Awaitable[Any]], **settings: Any
) -> tuple[Any, PairwiseJudge]:
    config = {"endpoint": server.endpoint, "retries": 0, "patience_s": 0, "timeout_s": 20,
              **settings}  # fmt: skip

    async def scenario() -> tuple[Any, PairwiseJudge]:
        judge = PairwiseJudge(JudgeConfig.model_validate(config))
        try:
            return await what(judge), judge
        finally:
            await judge.aclose()

    return asyncio.run(scenario())


def test_a_pair_is_asked_in_both_orders_and_the_better_answer_wins(server: JudgeServer) -> None:
    server.decide = larger
    found, judge = use(server, lambda j: j.compare(TASK, "3", "2"))
    assert sorted(map(shown, server.requests)) == [("2", "3"), ("3", "2")]
    assert (found.forward, found.backward, found.flipped, found.score) == (1.0, 1.0, False, 1.0)
    assert use(server, lambda j: j.compare(TASK, "2", "3"))[0].score == 0.0
    assert judge.metrics()["judge/position_flip_rate"] == 0.0


@pytest.mark.parametrize("bias", ["A", "B"])
def test_a_judge_that_prefers_a_place_decides_nothing_and_is_found_out(
    server: JudgeServer, bias: str
) -> None:
    server.behaviours = [bias]
    found, judge = use(server, lambda j: j.compare(TASK, "3", "2"))
    assert found.flipped and found.score == 0.5
    assert judge.metrics()["judge/position_flip_rate"] == 1.0


def test_a_winner_in_one_order_and_a_tie_in_the_other_is_a_tie_that_counts(
    server: JudgeServer,
) -> None:
    server.decide = lambda request: "A" if shown(request) == ("3", "2") else "tie"
    found, _ = use(server, lambda j: j.compare(TASK, "3", "2"))
    assert (found.forward, found.backward, found.score, found.flipped) == (1.0, 0.5, 0.5, True)


def test_equal_answers_tie_unasked_and_an_unusable_reply_is_a_fault(server: JudgeServer) -> None:
    server.behaviours = ["the first"]
    found, judge = use(server, lambda j: j.compare(TASK, "3", "3"))
    assert found.score == 0.5 and server.requests == [] and judge.pairs == 0
    with pytest.raises(JudgeFault, match="the first"):
        use(server, lambda j: j.compare(TASK, "3", "2"))


def test_the_flip_rate_of_pairs_judged_in_both_orders() -> None:
    assert flip_rate([(1.0, 1.0), (1.0, 0.0), (0.5, 0.5), (0.5, 1.0)]) == 0.5
    assert math.isnan(flip_rate([]))


@given(count=st.integers(2, 24), opponents=st.integers(1, 8), seed=st.integers(0, 99))
def test_everybody_has_as_many_opponents_as_the_budget_allows(
    count: int, opponents: int, seed: int
) -> None:
    pairs = schedule(count, opponents, seed)
    assert len(set(pairs)) == len(pairs) and all(0 <= i < j < count for i, j in pairs)
    met = Counter(i for pair in pairs for i in pair)
    odd = opponents % 2 and count % 2
    expected = min(count - 1, opponents + (1 if odd else 0))
    assert set(met.values()) == {expected} and len(met) == count
    assert schedule(count, opponents, seed) == pairs


def test_win_rates_by_hand() -> None:
    rates = win_rates(4, [(0, 1, 1.0), (0, 2, 0.5), (1, 2, 0.0)])
    assert rates == [0.75, 0.0, 0.75, None]


def test_a_group_is_ranked_and_equal_answers_score_the_same(server: JudgeServer) -> None:
    server.decide = larger
    answers = ["3", "1", "2", "3", "1"]
    scores, judge = use(server, lambda j: j.rank(TASK, answers, seed=0))
    assert scores == [1.0, 0.0, 0.5, 1.0, 0.0] and judge.pairs == 3
    scores, judge = use(server, lambda j: j.rank(TASK, ["7"] * 4, seed=0))
    assert scores == [0.5] * 4 and judge.pairs == 0
    many = [str(n) for n in range(9)]
    scores, judge = use(
        server, lambda j: j.rank(TASK, many, seed=3), pairwise={"opponents": 2}
    )
    assert judge.pairs == 9 and scores[0] == 0.0 and scores[8] == 1.0


def test_an_answer_without_any_comparison_is_a_fault_and_the_others_keep_theirs(
    server: JudgeServer,
) -> None:
    server.decide = lambda r: "what?" if "9" in shown(r) else larger(r)
    scores, _ = use(server, lambda j: j.rank(TASK, ["1", "9", "2"], seed=0))
    assert scores[0] == 0.0 and isinstance(scores[1], JudgeFault) and scores[2] == 1.0


def test_against_a_reference_it_is_a_check_of_one_answer(server: JudgeServer) -> None:
    server.decide = larger

    async def scenario(judge: PairwiseJudge) -> list[tuple[bool, float, str]]:
        check = PairwiseCheck(judge, "best", pass_at=0.5)
        found = [await check(TASK, answer) for answer in ("6", "5", "4")]
        with pytest.raises(EnvironmentFault, match="'best'"):
            await check(make_task(), "1")
        return [(v.passed, v.score, v.reason) for v in found]

    assert use(server, scenario)[0] == [
        (True, 1.0, "compared: win"), (True, 0.5, "compared: tie"), (False, 0.0, "compared: loss"),
    ]  # fmt: skip


class Numbers(FakeEnvironment):
    def canonical(self, task: object, answer: str) -> str | None:
        return answer if answer.isdigit() else None


def test_siblings_are_compared_once_all_have_been_judged(server: JudgeServer) -> None:
    """Only those that pass every gate before it; a fault is lost and not a low reward."""
    server.decide = lambda r: "what?" if "9" in shown(r) else larger(r)
    stages = [
        StageConfig(check="a"),
        StageConfig(check="judge_pairwise", on_fail=0.1, band=(0.5, 1.0)),
    ]

    async def scenario(judge: PairwiseJudge) -> list[Any]:
        check = GroupCheck(judge, pass_at=0.5)
        gates = GatedReward(stages, Numbers({"a": passing()}), None, None, pairwise=check)
        members = [
            await gates.judge_episode(make_episode(answer, TASK))
            for answer in ("1", "2", "no number", "3", "9")
        ]
        assert server.requests == []
        return await gates.judge_group(TASK, members, seed=0)

    low, middle, unparsed, high, lost = use(server, scenario)[0]
    assert [m.reward for m in (low, middle, unparsed, high)] == [0.1, 0.75, 0.1, 1.0]
    assert isinstance(lost, JudgeFault)
    assert isinstance(high, Screened) and high.judged.reward == 1.0
    verdict = middle.judged.verdicts[-1]
    assert (verdict.gate, verdict.passed, verdict.score) == ("judge_pairwise", True, 0.5)
    assert "pending" not in verdict.reason and not low.judged.verdicts[-1].passed


def test_comparing_siblings_comes_last(server: JudgeServer) -> None:
    judges = make_judges(
        JudgeConfig(endpoint=server.endpoint), FakeEnvironment({}).judge_prompt, compares=True
    )
    check = pairwise_check(JudgeConfig(), judges)
    assert isinstance(check, GroupCheck)
    stages = [StageConfig(check="judge_pairwise"), StageConfig(check="a")]
    with pytest.raises(UserError, match="put it last"):
        GatedReward(stages, FakeEnvironment({"a": passing()}), None, None, pairwise=check)
    named = JudgeConfig.model_validate({"pairwise": {"reference": "gold"}})
    assert isinstance(pairwise_check(named, judges), PairwiseCheck)
    asyncio.run(judges.aclose())


def test_a_greedy_baseline_cannot_be_compared_with_siblings() -> None:
    config = load_config(
        ["experiment=segments_cpu", "rewards.stages=[{check: judge_pairwise}]",
         "rewards.judge.endpoint=http://h/v1", "rewards.lint.max_constant=1",
         f"algo.advantage={sorted(GREEDY)[0]}"]
    )  # fmt: skip
    config = config.model_copy(update={"detectors": DetectorsConfig()})
    found = lint_rewards(config, Numbers({}), quick=True).problems
    assert any("says nothing of the greedy answer" in text for text in found)


def test_a_sibling_without_comparison_is_lost_to_the_system_and_keeps_its_number() -> None:
    class Ranks(GatedReward):
        async def judge_group(
            self, task: Task, members: Sequence[Screened], seed: int
        ) -> list[Screened | SystemFault]:
            return [members[0], JudgeFault("not compared")]

    rewards = Ranks([StageConfig(check="a")], FakeEnvironment({"a": passing()}))
    collector = Collector(None, None, None, rewards, RolloutConfig())  # type: ignore[arg-type]

    async def scenario() -> Sequence[Screened | Fault]:
        one, other = [await rewards.judge_episode(make_episode(text)) for text in "ab"]
        episode = replace(other.judged.episode, sample=3)
        other = replace(other, judged=replace(other.judged, episode=episode))
        earlier = Fault(sample=2, kind="engine", detail="gone")
        return await collector._compared(TASK, [one, earlier, other], seed=1)

    kept, earlier, lost = asyncio.run(scenario())
    assert isinstance(kept, Screened) and isinstance(earlier, Fault) and earlier.kind == "engine"
    assert lost == Fault(sample=3, kind="judge", detail="not compared")
