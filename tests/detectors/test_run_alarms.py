"""Change-points, catch-all use and dominance: raised on hacks, silent on learning."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rltrain.bench.detectors_runs import SCENARIOS
from rltrain.config.rewards import DetectorsConfig
from rltrain.detectors import RunMonitor, catch_all_use, change_point, component_dominance
from rltrain.detectors.usage import names_used
from rltrain.types import Group, Message, Task
from tests.detectors.detector_fakes import group, member

RUNS = 25


@pytest.mark.parametrize("alarm", SCENARIOS)
def test_an_alarm_is_raised_on_hacked_runs_and_silent_on_honest_ones(alarm: str) -> None:
    hacked, honest = SCENARIOS[alarm]
    for name, run in hacked.items():
        raised = sum(run(np.random.default_rng(seed)) for seed in range(RUNS))
        assert raised >= 0.6 * RUNS, f"{name}: {raised} of {RUNS}"
    for name, run in honest.items():
        raised = sum(run(np.random.default_rng(seed)) for seed in range(RUNS))
        assert raised <= 0.12 * RUNS, f"{name}: {raised} of {RUNS}"


def test_a_change_point_says_when_and_how_much() -> None:
    reward = [0.2] * 10 + [0.6] * 6
    alarm = change_point(reward, [0.3] * 16)
    assert alarm is not None and alarm.severity == pytest.approx(0.4)
    assert alarm.evidence.startswith("6 steps ago the reward rose by 0.400")
    assert change_point(reward, reward) is None
    assert change_point(reward, [None] * 16) is None
    assert change_point(reward[:9], [0.3] * 9) is None
    assert change_point([], []) is None


def test_names_are_fields_and_tools_but_not_values() -> None:
    assert names_used("customer_tags CONTAINS 'amount_spent' AND shopify_email.opened") == {
        "customer_tags", "shopify_email.opened",
    }  # fmt: skip
    assert names_used('{"name": "search", "arguments": {"max_results": 3}}') == {"search"}
    assert names_used("plain words only") == frozenset()


def test_a_field_that_right_answers_use_as_often_is_no_catch_all() -> None:
    hack = [group(f"request {i}", [f"customer_tags = {i}"]) for i in range(20)]
    alarm = catch_all_use(hack)
    assert alarm is not None and "'customer_tags' is used for 20 of 20" in alarm.evidence
    right = [group(f"other {i}", [f"customer_tags = {i}"], truth=1.0) for i in range(20)]
    assert catch_all_use([*hack, *right]) is None


def test_one_component_that_pays_nearly_all_is_an_alarm() -> None:
    parts = {"format": [1.0] * 40, "answer": [0.05] * 40}
    alarm = component_dominance(parts)
    assert alarm is not None and alarm.severity == pytest.approx(1 / 1.05)
    assert component_dominance({**parts, "answer": [0.5] * 40}) is None
    assert component_dominance({"only": [1.0] * 40}) is None
    assert component_dominance({"a": [0.0] * 40, "b": [0.0] * 40}) is None
    with pytest.raises(ValueError, match="equally long"):
        component_dominance({"a": [1.0], "b": []})


def test_the_monitor_raises_the_new_alarms_and_goes_on_after_a_checkpoint() -> None:
    config = DetectorsConfig(alarms=("change_point", "catch_all_use"))
    whole, first = RunMonitor(config), RunMonitor(config)
    raised, resumed = [], []
    for step in range(20):
        groups = [_step_group(step, place) for place in range(4)]
        raised += [(step, alarm.name) for alarm in whole.observe(groups)]
        if step == 12:
            state = json.loads(json.dumps(first.state_dict()))
            first = RunMonitor(config)
            first.load_state_dict(state)
        resumed += [(step, alarm.name) for alarm in first.observe(groups)]
    assert raised == resumed
    assert {name for _, name in raised} == {"change_point", "catch_all_use"}


def test_a_state_of_an_earlier_version_is_loaded() -> None:
    state = RunMonitor(DetectorsConfig()).state_dict()
    del state["names"]
    RunMonitor(DetectorsConfig()).load_state_dict(state)


def _step_group(step: int, place: int) -> Group:
    asked = f"request {step} {place}"
    task = Task(id=asked, env="t", split="train", prompt=(Message(role="user", content=asked),))
    wobble = 0.01 * ((step * 7 + place) % 3)
    reward = (0.7 if step >= 10 else 0.2) + wobble
    answer = f"customer_tags = {place}"
    members = [member(task, answer, reward=reward, truth=0.3 - wobble, tokens=3) for _ in range(2)]
    return Group(lease=step, task=task, members=tuple(members))
