"""Collecting a group with ten-line fakes: what is a score, what is a fault, what is a bug."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rltrain.config.rollout import RolloutConfig
from rltrain.errors import EngineFault, EnvironmentFault, JudgeFault
from rltrain.rollout.collect import Collector
from rltrain.types import Episode, Group, Judged, Message, Screened, Task, Turn
from tests.makers import make_task, make_turn

PROMPT = [5, 6]
SAID = [90, 91]
"""Ids of whatever the environment says between turns."""


class FakeRenderer:
    def prompt(self, messages: Sequence[Message]) -> list[int]:
        return list(PROMPT)

    def continuation(self, messages: Sequence[Message]) -> list[int]:
        return list(SAID)


class FakeSampler:
    """Completion ids count up over all calls; `fail_at` is the number of a call that fails."""

    def __init__(self, stop_reason: str = "stop", fail_at: int | None = None) -> None:
        self.stop_reason, self.fail_at = stop_reason, fail_at
        self.calls: list[tuple[list[int], int, int | None]] = []
        self.next_id = 10

    async def generate(
        self, prompt_ids: Sequence[int], *, n: int, seed: int | None, max_tokens: int
    ) -> list[Turn]:
        self.calls.append((list(prompt_ids), n, seed))
        if len(self.calls) - 1 == self.fail_at:
            raise EngineFault("no engine answered")
        ids = range(self.next_id, self.next_id + n)
        self.next_id += n
        reason = self.stop_reason
        return [make_turn(prompt_ids, (i,), stop_reason=reason, text=f"text {i}") for i in ids]


class FakeSession:
    def __init__(self, turns: int, fault: Exception | None, closed: list[bool]) -> None:
        self.left, self.fault, self.closed = turns, fault, closed
        self.answer = ""

    async def step(self, turn: Turn) -> list[Message] | None:
        if self.fault:
            raise self.fault
        self.left -= 1
        self.answer = f"submitted: {turn.text}"
        return [Message(role="tool", content="more")] if self.left else None

    async def close(self) -> None:
        self.closed.append(True)


class FakeEnvironment:
    def __init__(self, turns: int = 1, fault: Exception | None = None) -> None:
        self.turns, self.fault = turns, fault
        self.closed: list[bool] = []

    def open(self, task: Task) -> FakeSession:
        return FakeSession(self.turns, self.fault, self.closed)


class FakeRewarder:
    def __init__(self, judge: Callable[[Episode], float]) -> None:
        self.judge = judge

    async def judge_episode(self, episode: Episode) -> Screened:
        reward = self.judge(episode)
        judged = Judged(episode=episode, verdicts=(), reward=reward, truth=None)
        return Screened(judged=judged, flags=(), reward=reward)


def collect(
    sampler: FakeSampler,
    environment: FakeEnvironment,
    judge: Callable[[Episode], float] = lambda episode: 1.0,
    max_turns: int = 1,
    greedy: FakeSampler | None = None,
) -> Group:
    config = RolloutConfig(max_turns=max_turns)
    parts: tuple[Any, ...] = (environment, sampler, FakeRenderer(), FakeRewarder(judge))
    return asyncio.run(Collector(*parts, config, greedy).group(4, make_task(), 3, 77))


def test_a_group_has_one_member_per_sibling_in_order() -> None:
    sampler = FakeSampler()
    group = collect(sampler, FakeEnvironment())
    assert (group.lease, group.faults) == (4, ())
    assert [m.judged.episode.sample for m in group.members] == [0, 1, 2]
    assert [m.judged.episode.answer for m in group.members] == [
        f"submitted: text {i}" for i in (10, 11, 12)
    ]
    assert sampler.calls == [(PROMPT, 3, 77)]
    assert set(group.timing) == {"generate_s", "reward_s"}


def test_an_engine_fault_makes_every_sibling_a_fault() -> None:
    group = collect(FakeSampler(fail_at=0), FakeEnvironment())
    assert group.members == ()
    assert [(f.sample, f.kind, f.detail) for f in group.faults] == [
        (i, "engine", "no engine answered") for i in range(3)
    ]


def test_a_judge_fault_costs_only_the_sibling_that_it_was_about() -> None:
    def judge(episode: Episode) -> float:
        if episode.sample == 1:
            raise JudgeFault("no verdict")
        return 1.0

    group = collect(FakeSampler(), FakeEnvironment(), judge)
    assert [m.judged.episode.sample for m in group.members] == [0, 2]
    assert [(f.sample, f.kind) for f in group.faults] == [(1, "judge")]


def test_an_engine_fault_in_a_later_turn_costs_only_that_sibling() -> None:
    group = collect(FakeSampler(fail_at=2), FakeEnvironment(turns=2), max_turns=2)
    assert len(group.members) == 2
    assert [f.kind for f in group.faults] == ["engine"]


def test_a_broken_backend_of_the_environment_is_a_fault_and_the_session_is_closed() -> None:
    environment = FakeEnvironment(fault=EnvironmentFault("database is gone"))
    group = collect(FakeSampler(), environment)
    assert group.members == ()
    assert {f.kind for f in group.faults} == {"environment"}
    assert len(environment.closed) == 3


def test_a_wrong_answer_is_a_score_and_never_a_fault() -> None:
    group = collect(FakeSampler(), FakeEnvironment(), lambda episode: 0.0)
    assert [m.reward for m in group.members] == [0.0] * 3
    assert group.faults == ()


@pytest.mark.parametrize("error", [KeyError("gold"), ValueError("a bug"), ZeroDivisionError()])
def test_a_bug_in_the_environment_is_raised_and_not_scored(error: Exception) -> None:
    with pytest.raises(type(error)):
        collect(FakeSampler(), FakeEnvironment(fault=error))


def test_a_bug_in_a_check_is_raised_and_not_scored() -> None:
    def judge(episode: Episode) -> float:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        collect(FakeSampler(), FakeEnvironment(), judge)


def test_later_turns_only_append_to_the_ids_so_far() -> None:
    sampler = FakeSampler()
    environment = FakeEnvironment(turns=3)
    group = collect(sampler, environment, max_turns=3)
    for member in group.members:
        episode = member.judged.episode
        assert (len(episode.turns), episode.ended) == (3, "answered")
        first, second, third = episode.turns
        assert first.prompt_ids == tuple(PROMPT)
        assert second.prompt_ids == (*first.prompt_ids, *first.completion_ids, *SAID)
        assert third.prompt_ids == (*second.prompt_ids, *second.completion_ids, *SAID)
        assert episode.answer == f"submitted: {third.text}"
    seeds = [seed for _, _, seed in sampler.calls]
    assert len(set(seeds)) == 1 + 3 * 2  # every request of the group has a seed of its own
    assert len(environment.closed) == 3


def test_an_episode_with_no_turns_left_ends_with_its_last_text() -> None:
    group = collect(FakeSampler(), FakeEnvironment(turns=5), max_turns=2)
    for member in group.members:
        episode = member.judged.episode
        assert (len(episode.turns), episode.ended) == (2, "max_turns")
        assert episode.answer == episode.turns[-1].text


def test_a_completion_cut_by_the_budget_ends_the_episode_as_truncated() -> None:
    environment = FakeEnvironment(turns=5)
    group = collect(FakeSampler(stop_reason="length"), environment, max_turns=5)
    assert [m.judged.episode.ended for m in group.members] == ["truncated"] * 3
    assert [m.judged.episode.answer for m in group.members] == ["text 10", "text 11", "text 12"]
    assert len(environment.closed) == 3


def test_a_greedy_answer_is_played_by_its_own_sampler_and_judged_as_the_siblings_are() -> None:
    sampler, greedy = FakeSampler(), FakeSampler()
    environment = FakeEnvironment(turns=2)
    group = collect(sampler, environment, lambda e: 0.25 * e.sample, 2, greedy)
    assert [m.reward for m in group.members] == [0.0, 0.25, 0.5]
    assert group.greedy is not None
    assert group.greedy.reward == 0.75  # number 3, after the siblings 0, 1 and 2
    assert [n for _, n, _ in greedy.calls] == [1, 1]  # one answer of two turns
    assert [n for _, n, _ in sampler.calls] == [3, 1, 1, 1]
    assert group.faults == ()
    assert len(environment.closed) == 4
    assert collect(FakeSampler(), FakeEnvironment()).greedy is None


@pytest.mark.parametrize("fail_at", [0, 1])
def test_a_greedy_answer_that_the_engine_lost_is_a_fault_and_has_no_reward(fail_at: int) -> None:
    greedy = FakeSampler(fail_at=fail_at)
    group = collect(FakeSampler(), FakeEnvironment(turns=2), max_turns=2, greedy=greedy)
    assert group.greedy is None
    assert [(f.sample, f.kind) for f in group.faults] == [(3, "engine")]
    assert len(group.members) == 3


def test_a_judge_that_fails_on_the_greedy_answer_costs_only_that() -> None:
    def judge(episode: Episode) -> float:
        if episode.sample == 3:
            raise JudgeFault("no verdict")
        return 1.0

    group = collect(FakeSampler(), FakeEnvironment(), judge, greedy=FakeSampler())
    assert group.greedy is None
    assert [(f.sample, f.kind) for f in group.faults] == [(3, "judge")]
    assert [m.reward for m in group.members] == [1.0] * 3
