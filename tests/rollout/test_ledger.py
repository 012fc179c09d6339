"""The ledger adds up, whatever happens in whatever order."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rltrain.rollout.ledger import Ledger
from rltrain.rollout.settle import settle, settle_all
from rltrain.types import Group
from tests.makers import make_group

SIBLINGS = 4


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def lease(ledger: Ledger, number: int) -> None:
    ledger.lease(number, f"t{number}", SIBLINGS, 0, "worker-0")


@st.composite
def groups(draw: st.DrawFn) -> Group:
    """A returned group of four siblings, some lost, some dropped, for one of six leases."""
    fates = draw(st.lists(st.sampled_from(["live", "lost", "drop"]), min_size=4, max_size=4))
    return make_group(
        [1.0] * SIBLINGS,
        lease=draw(st.integers(0, 5)),
        lost=[i for i, fate in enumerate(fates) if fate == "lost"],
        dropped=[i for i, fate in enumerate(fates) if fate == "drop"],
    )


events = st.lists(
    st.one_of(
        st.tuples(st.just("lease"), st.integers(0, 5)),
        st.tuples(st.just("receive"), groups()),
        st.tuples(st.just("consume"), st.integers(0, 5)),
        st.tuples(st.just("lose"), st.integers(0, 5)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(events)
def test_issued_is_consumed_plus_dropped_plus_in_flight_after_every_event(
    sequence: list[tuple[str, int | Group]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        issued: set[int] = set()
        here: dict[int, Group] = {}
        closed: set[int] = set()
        consumed = lost = 0
        for kind, value in sequence:
            if isinstance(value, Group):
                first = value.lease in issued and value.lease not in here
                assert ledger.receive(value) is first  # a duplicate or a stranger is not taken
                if first:
                    here[value.lease] = value
            elif kind == "lease" and value not in issued:
                lease(ledger, value)
                issued.add(value)
            elif kind in ("consume", "lose") and value in here and value not in closed:
                group = here[value]
                settle(ledger, group, step=1 if kind == "consume" else None)
                closed.add(value)
                live = sum(not m.dropped for m in group.members) if kind == "consume" else 0
                live = live if live >= 2 else 0  # one sibling alone is not trained on
                consumed, lost = consumed + live, lost + SIBLINGS - live
            totals = ledger.totals()
            assert totals["issued"] == SIBLINGS * len(issued)
            assert totals["consumed"] == consumed
            assert sum(totals["dropped"].values()) == lost
            assert totals["in_flight"] == SIBLINGS * len(issued - closed)
        ledger.close()


def test_every_reason_is_counted_by_name(ledger: Ledger) -> None:
    for number in range(3):
        lease(ledger, number)
    trained = make_group([1, 0, 1, 0], lease=0, lost=[0], dropped=[1])
    alone = make_group([1, 0, 1, 0], lease=1, lost=[0, 1], dropped=[2])
    assert ledger.receive(trained)
    assert ledger.receive(alone)
    settle_all(ledger, [trained], step=1)
    settle(ledger, alone, step=None)
    assert ledger.totals() == {
        "issued": 12,
        "consumed": 2,
        "dropped": {"alone_in_group": 1, "detector:opt_out": 2, "fault:engine": 3},
        "in_flight": 4,
    }
    assert ledger.settle_open("run_ended") == 1
    totals = ledger.totals()
    assert totals["in_flight"] == 0
    assert totals["dropped"]["run_ended"] == 4


USED = dict.fromkeys(range(SIBLINGS), "consumed")


@pytest.mark.parametrize("samples", [range(3), range(5), range(1, 5)])
def test_a_settlement_that_does_not_add_up_is_refused(ledger: Ledger, samples: range) -> None:
    lease(ledger, 0)
    with pytest.raises(ValueError, match="!= 4 issued"):
        ledger.settle(0, step=1, fates=dict.fromkeys(samples, "consumed"))
    assert ledger.totals()["in_flight"] == SIBLINGS


def test_nothing_is_settled_twice_or_out_of_nowhere(ledger: Ledger) -> None:
    lease(ledger, 0)
    ledger.settle(0, step=1, fates=USED)
    with pytest.raises(ValueError, match="lease 0 is not open"):
        ledger.settle(0, step=2, fates=USED)
    with pytest.raises(ValueError, match="lease 7 is not open"):
        ledger.settle(7, step=2, fates=USED)


def test_a_lease_number_is_used_once(ledger: Ledger) -> None:
    lease(ledger, 0)
    with pytest.raises(sqlite3.IntegrityError):
        lease(ledger, 0)


def test_the_book_survives_the_process_that_wrote_it(ledger: Ledger) -> None:
    lease(ledger, 0)
    before = ledger.totals()
    assert Ledger(ledger.path).totals() == before
