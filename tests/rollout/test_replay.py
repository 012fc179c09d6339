"""A recorded run's groups, step by step, once more; and the ledger's file, damaged."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from rltrain.errors import UserError
from rltrain.rollout.ledger import Ledger
from rltrain.rollout.plan import DispatchPlan
from rltrain.rollout.replay import Replay
from rltrain.rollout.settle import settle_all
from rltrain.types import Group
from tests.makers import make_group

SIBLINGS, STEPS = 3, 4
Recorded = tuple[Path, dict[int, list[Group]]]


def plan(**changed: Any) -> DispatchPlan:
    settings = {"groups_per_step": 2, "group_size": SIBLINGS, "max_steps": STEPS, "max_lag": 0,
                "seed": 0, "max_fault_rate": 0.5}  # fmt: skip
    return DispatchPlan(**{**settings, **changed})


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    """Four steps of two groups; every third lease was replaced. Checkpoints came and went."""
    run = tmp_path / "recorded"
    run.mkdir()
    ledger = Ledger(run / "ledger.sqlite", keep_all=True)
    steps: dict[int, list[Group]] = {}
    for step in range(1, STEPS + 1):
        groups = []
        for lease in range(3 * step - 3, 3 * step):
            group = make_group([lease / 7, 0.1, 0.3], lease=lease, version=step - 1, lost=[1])
            ledger.lease(lease, group.task.id, SIBLINGS, step - 1, "w")
            ledger.receive(group)
            if lease % 3 == 1:
                dropped = {0: "zero_variance", 1: "fault:engine", 2: "zero_variance"}
                ledger.settle(lease, step=None, fates=dropped)
            else:
                groups.append(group)
        settle_all(ledger, groups, step)
        ledger.prune(step)
        steps[step] = groups
    ledger.close()
    return run, steps


def test_each_step_gets_what_the_recorded_run_consumed_at_it(
    tmp_path: Path, recorded: Recorded
) -> None:
    run, steps = recorded
    before = (run / "ledger.sqlite").read_bytes()
    ledger = Ledger(tmp_path / "own.sqlite")
    source = Replay(run, ledger, plan())
    source.start()
    for step in (1, 2, 3):
        groups = source.take(2)
        assert groups == steps[step]
        settle_all(ledger, groups, step)
        source.advance(step)
    source.close()
    ledger.close()

    ledger = Ledger(tmp_path / "own.sqlite")  # stopped, and continued from its first step
    source = Replay(run, ledger, plan(), step=1)
    for step in (2, 3, 4):
        groups = source.take(2)
        assert groups == steps[step]
        settle_all(ledger, groups, step)
    source.close()
    assert ledger.totals() == {
        "issued": 24, "consumed": 16, "dropped": {"fault:engine": 8}, "in_flight": 0
    }  # fmt: skip
    assert (run / "ledger.sqlite").read_bytes() == before  # only read


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"max_steps": 5}, "holds 0 groups of step 5, and this run needs 2"),
        ({"groups_per_step": 3}, "holds 2 groups of step 1, and this run needs 3"),
    ],
)
def test_a_run_that_asks_for_more_than_was_recorded_is_told_before_it_starts(
    tmp_path: Path, recorded: Recorded, changed: dict[str, int], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Replay(recorded[0], Ledger(tmp_path / "own.sqlite"), plan(**changed))


def test_a_run_that_did_not_record_cannot_be_replayed(
    tmp_path: Path, recorded: Recorded
) -> None:
    run, _ = recorded
    ledger = Ledger(run / "ledger.sqlite")  # without rollout.record
    ledger.prune(2)
    ledger.close()
    with pytest.raises(UserError, match=r"0 groups of step 1.*rollout\.record=true"):
        Replay(run, Ledger(tmp_path / "own.sqlite"), plan())
    with pytest.raises(UserError, match=r"has no ledger\.sqlite"):
        Replay(tmp_path, Ledger(tmp_path / "own.sqlite"), plan())
    (tmp_path / "ledger.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match="cannot be read"):
        Replay(tmp_path, Ledger(tmp_path / "own.sqlite"), plan())


@pytest.mark.parametrize("size", [100, 4096, 12_000])
def test_a_ledger_that_was_cut_is_named(
    recorded: Recorded, size: int
) -> None:
    path = recorded[0] / "ledger.sqlite"
    os.truncate(path, size)
    with pytest.raises(UserError, match="cannot be used as a ledger") as said:
        Ledger(path)
    assert "\n" not in str(said.value)


def test_a_group_with_a_flipped_byte_is_named(
    recorded: Recorded,
) -> None:
    ledger = Ledger(recorded[0] / "ledger.sqlite")
    body = bytearray(ledger._db.execute("SELECT body FROM groups WHERE lease=2").fetchone()[0])
    body[len(body) // 2] ^= 0x10
    ledger._db.execute("UPDATE groups SET body=? WHERE lease=2", (bytes(body),))
    with pytest.raises(UserError, match="holds a damaged group"):
        ledger.group(2)


def test_a_ledger_of_an_earlier_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE leases (lease INTEGER PRIMARY KEY, consumed INTEGER)")
    db.execute("INSERT INTO leases VALUES (0, 4)")
    db.commit()
    db.close()
    with pytest.raises(UserError, match="written by an earlier version of rltrain"):
        Ledger(path)
