"""When the system loses too many rollouts: pauses, and the end after the last of them."""

from __future__ import annotations

import pytest

from rltrain.errors import RltrainError
from rltrain.rollout import wire
from tests.rollout.fake_worker import SIBLINGS, done, run_all, running


def test_an_engine_that_gets_well_in_a_pause_costs_no_run() -> None:
    said: list[str] = []

    def answer(lease: wire.Lease) -> list[wire.ToLearner]:
        return done(lease, lost=(0, 1, 2) if lease.lease < 5 else ())

    pauses = {"pause_s": 0.1, "max_pauses": 2, "notice": lambda kind, text: said.append(kind)}
    with running(answer, **pauses) as (dispatcher, worker):
        steps = run_all(dispatcher)
        assert not dispatcher.paused
        totals = dispatcher.ledger.totals()
    assert said == ["paused", "paused", "paused_over"]
    assert sum(map(len, steps)) == 12
    assert totals["dropped"] == {"fault:engine": 5 * SIBLINGS}
    assert len(worker.leases) == 17


def test_an_engine_that_stays_ill_ends_the_run_after_the_last_pause() -> None:
    pauses = {"pause_s": 0.05, "max_pauses": 2}
    with (
        running(lambda lease: done(lease, lost=(0, 1, 2)), **pauses) as (dispatcher, worker),
        pytest.raises(RltrainError, match=r"rollout\.max_fault_rate=0\.5 after 2 pauses"),
    ):
        dispatcher.take(2)
    assert len(worker.leases) == 7  # one that replaces a lost one, then one step's groups a try
