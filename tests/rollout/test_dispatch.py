"""The dispatcher over a real ZeroMQ socket, with a worker that answers in an order of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from rltrain.errors import ChildDied, RltrainError, UserError
from rltrain.rollout import wire
from rltrain.rollout.plan import group_seed
from tests.makers import make_group, make_task
from tests.rollout.fake_worker import SIBLINGS, done, leased_versions, run_all, running


@pytest.mark.parametrize("max_lag", [0, 1, 3])
@pytest.mark.parametrize(
    "slow", [lambda lease: False, lambda lease: lease % 3 == 0], ids=["prompt", "stragglers"]
)
def test_no_group_is_consumed_more_than_max_lag_versions_after_it_was_leased(
    max_lag: int, slow: Callable[[int], bool]
) -> None:
    with running(max_lag=max_lag, slow=slow) as (dispatcher, worker):
        steps = run_all(dispatcher)
        versions = leased_versions(dispatcher.ledger)
        totals = dispatcher.ledger.totals()
    # Step k, counted from 0, trains version k.
    lags = [k - versions[g.lease] for k, groups in enumerate(steps) for g in groups]
    assert max(lags) == max_lag  # the bound is kept, and used
    assert min(lags) >= 0
    assert totals == {"issued": 36, "consumed": 36, "dropped": {}, "in_flight": 0}
    assert len(worker.leases) == 12  # nothing is sampled that no step will consume


def test_groups_come_in_the_order_of_their_leases() -> None:
    with running(max_lag=3, slow=lambda lease: lease in (0, 5)) as (dispatcher, _):
        order = [g.lease for groups in run_all(dispatcher) for g in groups]
    assert order == list(range(12))


def test_every_lease_is_another_task_with_a_seed_of_its_own() -> None:
    with running(max_lag=1) as (dispatcher, worker):
        run_all(dispatcher)
    assert [lease.task.id for lease in worker.leases] == [f"t{n}" for n in range(12)]
    assert [lease.seed for lease in worker.leases] == [group_seed(5, n) for n in range(12)]
    assert {lease.samples for lease in worker.leases} == {SIBLINGS}
    siblings = {
        group_seed(run, n) + sibling for run in (0, 1) for n in range(50) for sibling in range(64)
    }
    assert len(siblings) == 2 * 50 * 64  # no two rollouts share one


@pytest.mark.parametrize("max_lag", [0, 2])
def test_a_group_that_the_system_lost_is_replaced_by_another_task(max_lag: int) -> None:
    def answer(lease: wire.Lease) -> list[wire.ToLearner]:
        return done(lease, lost=(0, 1) if lease.lease % 4 == 1 else ())

    with running(answer, max_lag=max_lag, slow=lambda lease: lease % 5 == 0) as (dispatcher, _):
        steps = run_all(dispatcher)
        versions = leased_versions(dispatcher.ledger)
        totals = dispatcher.ledger.totals()
    order = [g.lease for groups in steps for g in groups]
    assert order == [n for n in range(16) if n % 4 != 1]
    assert max(k - versions[g.lease] for k, gs in enumerate(steps) for g in gs) <= max_lag
    assert totals["consumed"] == 36
    assert totals["dropped"] == {"alone_in_group": 4, "fault:engine": 8}
    assert totals["issued"] == 48


def test_too_many_faults_stop_the_run_and_say_so() -> None:
    with (
        running(lambda lease: done(lease, lost=(0, 1, 2)), stall_s=5) as (dispatcher, _),
        pytest.raises(RltrainError, match=r"more than rollout\.max_fault_rate=0\.5"),
    ):
        dispatcher.take(2)


def test_too_many_faults_stop_the_run_even_if_every_group_can_still_be_trained_on() -> None:
    with (
        running(lambda lease: done(lease, lost=(1,)), max_fault_rate=0.3) as (dispatcher, _),
        pytest.raises(RltrainError, match="2 of the last 6 rollouts were lost"),
    ):
        run_all(dispatcher)


def test_faults_below_the_limit_do_not_stop_the_run() -> None:
    with running(lambda lease: done(lease, lost=(1,)), max_fault_rate=0.4) as (dispatcher, _):
        run_all(dispatcher)
        totals = dispatcher.ledger.totals()
    assert totals["consumed"] == 24
    assert totals["dropped"] == {"fault:engine": 12}


def test_a_worker_that_gives_up_stops_the_run_with_its_reason() -> None:
    with (
        running(lambda lease: [wire.Broken(reason="KeyError: 'gold'")]) as (dispatcher, _),
        pytest.raises(ChildDied, match="worker-7 gave up: KeyError: 'gold'"),
    ):
        dispatcher.take(2)


def test_a_run_without_groups_is_stopped_as_stalled() -> None:
    with (
        running(lambda lease: [], stall_s=0.2) as (dispatcher, _),
        pytest.raises(ChildDied, match=r"no group arrived .* \(0 of 2 are here\)"),
    ):
        dispatcher.take(2)


def test_a_group_that_arrives_twice_counts_once() -> None:
    with running(lambda lease: done(lease) * 2, max_lag=1) as (dispatcher, _):
        order = [g.lease for groups in run_all(dispatcher) for g in groups]
        totals = dispatcher.ledger.totals()
    assert order == list(range(12))
    assert totals["consumed"] == totals["issued"] == 36


def test_a_train_split_that_ends_is_the_environment_s_mistake() -> None:
    with (
        running(tasks=iter([make_task(0), make_task(1)])) as (dispatcher, _),
        pytest.raises(UserError, match="ended after 2 tasks"),
    ):
        run_all(dispatcher)


def test_nonsense_from_a_worker_stops_the_run() -> None:
    nonsense: Any = wire.Stop()  # only a learner says this
    with (
        running(lambda lease: [nonsense]) as (dispatcher, _),
        pytest.raises(msgspec.ValidationError, match="Stop"),
    ):
        dispatcher.take(2)


def test_workers_are_told_to_stop_and_their_counters_are_kept() -> None:
    def answer(lease: wire.Lease) -> list[wire.ToLearner]:
        return [wire.Done(group=make_group([1.0, 0.0, 0.5], lease=lease.lease), counters={"x": 4})]

    with running(answer) as (dispatcher, worker):
        dispatcher.take(2)
        assert dispatcher.counters == {"worker-7": {"x": 4}}
    assert worker.stopped
