"""Metrics of a step against numbers worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rltrain.track import group_metrics, validity
from rltrain.types import Fault, Flag, Group, Screened, Task, Verdict
from tests.report.synthetic import make_task, rollout

TASK = make_task(1)
HACK = Flag(detector="hack", evidence="e", action="zero")
GONE = Flag(detector="gone", evidence="e", action="drop")


def group(*members: Screened, **extra: Any) -> Group:
    return Group(lease=1, task=TASK, members=members, faults=extra.get("faults", ()))


# One passes everything; one stops at syntax; one is a hack that the judge liked; one is dropped.
MIXED = group(
    rollout(TASK, 0, version=3, tokens=10),
    rollout(TASK, 1, version=3, tokens=20, stopped="syntax", truth=0.0),
    rollout(TASK, 2, version=4, tokens=30, flags=(HACK,), truth=0.0),
    rollout(TASK, 3, version=4, tokens=40, flags=(GONE, HACK), truth=None),
    faults=(Fault(sample=4, kind="engine", detail="timed out"),),
)
# Everybody fails alike: nothing to learn.
FLAT = group(
    rollout(TASK, 0, version=5, stopped="format", truth=0.0, tokens=10),
    rollout(TASK, 1, version=5, stopped="format", truth=0.0, tokens=10),
)


def test_every_metric_of_a_mixed_step_is_the_one_worked_by_hand() -> None:
    metrics = group_metrics([MIXED, FLAT], version=5)
    by_hand = {
        "rollouts/count": 6, "group/count": 2,
        "reward/judged_mean": 3 / 6,  # before screening: passes, hack, dropped
        "reward/mean": 1 / 5,  # the hack is zeroed, the dropped one is not trained on
        "reward/std": 0.4,  # of 1, 0, 0, 0, 0
        "truth/mean": 1 / 5,  # one truth was not measured
        "valid/rate": 3 / 6,
        "group/zero_variance": 1 / 2, "group/size_mean": (3 + 2) / 2,
        "gate/format/reached": 1, "gate/format/pass": 4 / 6,
        "gate/syntax/reached": 4 / 6, "gate/syntax/pass": 3 / 4,
        "gate/schema/reached": 3 / 6, "gate/schema/pass": 1,
        "flag/hack": 2 / 6, "flag/gone": 1 / 6, "flag/any": 2 / 6,
        "lag/mean": (4 * 2 + 2 * 0) / 6, "lag/max": 2,  # from the group's oldest version
        "tokens/generated": 120, "length/mean": 20, "length/truncated": 1 / 6,
        "faults/engine": 1,
        "judge/calls": 2, "judge/cached": 1, "judge/saved": 3,
    }
    assert {name: metrics[name] for name in by_hand} == pytest.approx(by_hand)


def test_what_was_not_measured_has_no_key() -> None:
    metrics = group_metrics([FLAT], version=5)
    assert "gate/syntax/pass" not in metrics
    assert "truth/mean" not in group_metrics([group(rollout(TASK, 0, truth=None))], version=0)
    assert not any(name.startswith("judge/")
                   for name in group_metrics([MIXED], version=5, judge_gate=None))


def test_a_step_without_any_rollout_still_counts_its_faults() -> None:
    lost = group(faults=(Fault(sample=0, kind="judge", detail="down"),))
    assert group_metrics([lost], version=0) == {
        "rollouts/count": 0.0, "group/count": 1.0, "faults/judge": 1.0,
    }
    assert group_metrics([lost, FLAT], version=5)["lag/max"] == 0.0


def test_a_rollout_stopped_before_the_validity_gates_is_not_valid() -> None:
    def chain(*verdicts: tuple[str, bool]) -> list[Verdict]:
        return [Verdict(gate=gate, passed=passed, score=1.0) for gate, passed in verdicts]

    early = chain(("length", False))
    good = chain(("length", True), ("syntax", True), ("judge", False))
    bad = chain(("length", True), ("syntax", False))
    assert validity([early, good, bad]) == [False, True, False]
    assert validity([early, early]) is None
    assert validity([good], gates=("judge",)) == [False]


def test_hidden_data_of_a_task_has_no_influence() -> None:
    other = Task(id="x", env="e", prompt=TASK.prompt, split="train", data={})
    a, b = (group_metrics([group(rollout(task, 0))], version=1) for task in (TASK, other))
    assert a == b
