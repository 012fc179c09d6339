"""Which groups a step uses: dynamic sampling, the greedy baseline and the overlong filter, over the
real dispatcher and its ledger, which must add up whatever is left out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rltrain.rollout import wire
from rltrain.rollout.sieve import Sieve, has_spread
from rltrain.types import Fault, Group
from tests.makers import DROP, make_episode, make_group, make_member
from tests.rollout.fake_worker import SIBLINGS, Answer, leased_versions, run_all, running

MIXED, EQUAL = (1.0, 0.0, 0.5), (1.0, 1.0, 1.0)


def answering(rewards: dict[int, Sequence[float]], otherwise: Sequence[float] = MIXED) -> Answer:
    def answer(lease: wire.Lease) -> list[wire.ToLearner]:
        values = rewards.get(lease.lease, otherwise)
        return [wire.Done(group=make_group(values, lease=lease.lease))]

    return answer


def truncated(group: Group, which: Sequence[int]) -> Group:
    members = [
        replace(m, judged=replace(m.judged, episode=replace(m.judged.episode, ended="truncated")))
        if i in which
        else m
        for i, m in enumerate(group.members)
    ]
    return replace(group, members=tuple(members))


def test_a_group_has_spread_where_two_voters_earned_different_rewards() -> None:
    assert has_spread(make_group([1, 0, 0]))
    assert not has_spread(make_group([0.5, 0.5, 0.5]))
    assert not has_spread(make_group([1, 0, 0], dropped=[0]))
    assert not has_spread(make_group([1, 0, 0], lost=[0]))
    cut = truncated(make_group([1, 0, 0]), [0])
    assert has_spread(cut)
    assert not has_spread(cut, filter_truncated=True)


def test_siblings_that_all_beat_the_greedy_answer_do_teach_something() -> None:
    greedy = make_member(0.0, episode=make_episode())
    assert has_spread(replace(make_group([1, 1, 1]), greedy=greedy))
    assert not has_spread(replace(make_group([0, 0, 0]), greedy=greedy))


@pytest.mark.parametrize("max_lag", [0, 2])
def test_a_group_without_spread_is_replaced_and_counted(max_lag: int) -> None:
    equal = [1, 2, 6]
    answer = answering(dict.fromkeys(equal, EQUAL))
    plan = {"max_lag": max_lag, "max_replaced": 4}
    with running(answer, slow=lambda lease: lease % 4 == 0, **plan) as (dispatcher, worker):
        steps, replaced = [], []
        for step in range(1, 7):
            steps += run_all(dispatcher, [step])
            replaced.append(dispatcher.sampling)
        versions = leased_versions(dispatcher.ledger)
        totals = dispatcher.ledger.totals()
    order = [group.lease for groups in steps for group in groups]
    assert order == [n for n in range(15) if n not in equal]  # in the order of leases
    assert len(worker.leases) == 15  # nothing beyond what was replaced
    assert totals == {
        "issued": 15 * SIBLINGS,
        "consumed": 12 * SIBLINGS,
        "dropped": {"zero_variance": 3 * SIBLINGS},
        "in_flight": 0,
    }
    # Steps use 0 3, 4 5, 7 8, ...: two were replaced on the way to the first, one to the third.
    assert [found["sampling/replaced"] for found in replaced] == [2, 0, 1, 0, 0, 0]
    assert replaced[0]["sampling/replaced_reward"] == 1.0
    assert "sampling/replaced_reward" not in replaced[1]
    lags = [k - versions[g.lease] for k, groups in enumerate(steps) for g in groups]
    assert 0 <= min(lags) <= max(lags) <= max_lag


def test_a_policy_that_always_earns_the_same_does_not_sample_for_ever() -> None:
    with running(answering({}, EQUAL), max_replaced=3, max_steps=4) as (dispatcher, worker):
        steps = run_all(dispatcher)
        assert dispatcher.sampling == {
            "sampling/replaced": 3.0, "sampling/replaced_reward": 1.0
        }  # fmt: skip
        totals = dispatcher.ledger.totals()
    assert [len(groups) for groups in steps] == [2] * 4  # what there is is used
    assert len(worker.leases) == 4 * (2 + 3)
    assert totals["consumed"] == 8 * SIBLINGS
    assert totals["dropped"] == {"zero_variance": 12 * SIBLINGS}
    assert totals["issued"] == 20 * SIBLINGS


def test_without_dynamic_sampling_nothing_is_replaced_and_nothing_claimed() -> None:
    with running(answering({}, EQUAL)) as (dispatcher, worker):
        run_all(dispatcher)
        assert dispatcher.sampling == {}
        assert dispatcher.ledger.totals()["dropped"] == {}
    assert len(worker.leases) == 12


def test_what_is_kept_does_not_depend_on_who_answers_first() -> None:
    rng = random.Random(1)
    equal = {n: EQUAL for n in range(60) if rng.random() < 0.4}
    orders = []
    for slow in (lambda lease: False, lambda lease: lease % 3 == 0, lambda lease: lease % 2 == 1):
        with running(answering(equal), slow=slow, max_lag=2, max_replaced=2) as (dispatcher, _):
            orders.append([g.lease for groups in run_all(dispatcher) for g in groups])
            totals = dispatcher.ledger.totals()
        assert totals["issued"] == totals["consumed"] + sum(totals["dropped"].values())
    assert orders[0] == orders[1] == orders[2]


def test_lost_groups_are_replaced_beside_those_without_spread_and_do_not_use_up_the_limit() -> None:
    def answer(lease: wire.Lease) -> list[wire.ToLearner]:
        lost = (0, 1) if lease.lease % 4 == 0 else ()
        rewards = EQUAL if lease.lease % 4 == 1 else MIXED
        return [wire.Done(group=make_group(rewards, lease=lease.lease, lost=lost))]

    with running(answer, max_replaced=1, max_lag=1) as (dispatcher, _):
        order = [g.lease for groups in run_all(dispatcher) for g in groups]
        totals = dispatcher.ledger.totals()
    assert order == [n for n in range(24) if n % 4 in (2, 3)]
    assert totals["consumed"] == 12 * SIBLINGS
    assert totals["dropped"] == {
        "alone_in_group": 6, "fault:engine": 12, "zero_variance": 6 * SIBLINGS
    }  # fmt: skip


def test_the_limit_is_per_step_and_begins_anew_with_the_next() -> None:
    sieve = Sieve(groups_per_step=2, limit=1)
    flat, mixed = make_group([1, 1]), make_group([1, 0])
    asked = [flat, flat, mixed, mixed, flat, flat]
    assert [sieve.keep(group) for group in asked] == [False, True, True, True, False, True]
    assert [sieve.metrics(step)["sampling/replaced"] for step in (0, 1)] == [1, 1]


def with_greedy(lease: wire.Lease, kind: str) -> Group:
    group = make_group(MIXED, lease=lease.lease)
    greedy = make_member(0.5, episode=make_episode(sample=SIBLINGS))
    if kind == "lost":
        lost = Fault(sample=SIBLINGS, kind="judge", detail="no verdict")
        return replace(group, faults=(lost,))
    flags = (DROP,) if kind == "flagged" else ()
    return replace(group, greedy=replace(greedy, flags=flags))


def test_a_greedy_answer_is_issued_and_counted_but_never_consumed() -> None:
    with running(lambda lease: [wire.Done(group=with_greedy(lease, "here"))], greedy=True) as (
        dispatcher,
        worker,
    ):
        run_all(dispatcher)
        totals = dispatcher.ledger.totals()
    assert {lease.samples for lease in worker.leases} == {SIBLINGS}
    assert totals == {
        "issued": 12 * (SIBLINGS + 1),
        "consumed": 12 * SIBLINGS,
        "dropped": {"greedy_baseline": 12},
        "in_flight": 0,
    }


@pytest.mark.parametrize(
    ("kind", "greedy_fate"), [("lost", "fault:judge"), ("flagged", "greedy_baseline")]
)
def test_a_group_without_a_baseline_is_replaced_and_its_baseline_is_never_0(
    kind: str, greedy_fate: str
) -> None:
    def answer(lease: wire.Lease) -> list[wire.ToLearner]:
        return [wire.Done(group=with_greedy(lease, kind if lease.lease % 3 == 0 else "here"))]

    with running(answer, greedy=True) as (dispatcher, _):
        order = [g.lease for groups in run_all(dispatcher) for g in groups]
        totals = dispatcher.ledger.totals()
    gone = [n for n in range(18) if n % 3 == 0]
    assert order == [n for n in range(18) if n not in gone]
    expected = {"greedy_baseline": 12, "no_baseline": 6 * SIBLINGS}
    expected[greedy_fate] = expected.get(greedy_fate, 0) + 6
    assert totals["dropped"] == dict(sorted(expected.items()))
    assert totals["issued"] == 18 * (SIBLINGS + 1)


def test_filtered_answers_are_dropped_by_name_and_a_step_without_any_is_no_dead_end() -> None:
    def answer(lease: wire.Lease) -> list[wire.ToLearner]:
        cut = {0: [], 1: [1], 2: [0, 2]}[lease.lease % 3]
        return [wire.Done(group=truncated(make_group(MIXED, lease=lease.lease), cut))]

    with running(answer, filter_truncated=True) as (dispatcher, _):
        order = [g.lease for groups in run_all(dispatcher) for g in groups]
        totals = dispatcher.ledger.totals()
    assert order == list(range(12))
    # Of every three groups: 3 + 2 + 0 consumed, one sibling left alone, 1 + 2 filtered.
    assert totals["consumed"] == 4 * 5
    assert totals["dropped"] == {"alone_in_group": 4, "overlong": 12}
