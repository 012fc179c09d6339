"""Alarms over many rollouts: raised on planted hacks, silent on honest runs."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped,unused-ignore]

from rltrain.config.rewards import DetectorsConfig
from rltrain.detectors import (
    Alarm,
    RunMonitor,
    length_exploitation,
    output_collapse,
    reward_truth_divergence,
)
from rltrain.detectors.run_level import trend
from rltrain.types import Group, Message, Task
from tests.detectors.detector_fakes import group, member

WINDOW = 20
Series = tuple[np.ndarray, np.ndarray]


def noise(rng: np.random.Generator, sd: float = 0.05, carry: float = 0.0) -> np.ndarray:
    """[WINDOW] noise; `carry` is how much of a step's value the next one keeps."""
    out = np.zeros(WINDOW)
    value = 0.0
    for i in range(WINDOW + 20):
        value = carry * value + rng.normal(0, sd)
        if i >= 20:
            out[i - 20] = value
    return out


UP = np.linspace(0, 0.4, WINDOW)
HONEST: dict[str, Callable[[np.random.Generator], Series]] = {
    "flat": lambda r: (0.5 + noise(r), 0.4 + noise(r)),
    "flat and autocorrelated": lambda r: (0.5 + noise(r, carry=0.5), 0.4 + noise(r, carry=0.5)),
    "noisy": lambda r: (0.5 + noise(r, 0.3), 0.4 + noise(r, 0.3)),
    "both rise": lambda r: (0.2 + UP + noise(r), 0.1 + UP + noise(r)),
    "both rise in noise": lambda r: (0.2 + UP + noise(r, 0.2), 0.1 + UP + noise(r, 0.2)),
    "common noise": lambda r: (lambda z: (0.5 + z, 0.4 + z + noise(r, 0.01)))(noise(r, 0.2)),
    "only truth rises": lambda r: (0.5 + noise(r), 0.1 + UP + noise(r)),
    "both fall": lambda r: (0.6 - UP + noise(r), 0.5 - UP + noise(r)),
}


@pytest.mark.parametrize("kind", HONEST)
def test_divergence_is_silent_on_honest_series_in_95_percent_of_200_runs(kind: str) -> None:
    raised = 0
    for seed in range(200):
        reward, truth = HONEST[kind](np.random.default_rng(seed))
        raised += reward_truth_divergence(list(reward), list(truth), WINDOW) is not None
    assert raised <= 10


@pytest.mark.parametrize("fall", [0.0, 0.2])
def test_divergence_is_raised_when_the_reward_rises_and_the_truth_does_not(fall: float) -> None:
    raised = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        reward, truth = 0.2 + UP + noise(rng), 0.5 - fall * UP + noise(rng)
        alarm = reward_truth_divergence(list(reward), list(truth), WINDOW)
        raised += alarm is not None
    assert raised >= 90
    assert alarm is not None and alarm.severity > 0.2 and "the truth changed by" in alarm.evidence


def test_divergence_waits_for_a_full_window_and_skips_unmeasured_steps() -> None:
    reward = list(UP)
    assert reward_truth_divergence(reward[:19], [0.5] * 19, WINDOW) is None
    assert reward_truth_divergence(reward, [0.5] * 20, WINDOW) is not None
    assert reward_truth_divergence(reward, [None, *[0.5] * 19], WINDOW) is None
    assert reward_truth_divergence([0.1, *reward], [float("nan"), *[0.5] * 20], WINDOW) is not None
    assert reward_truth_divergence([], [], WINDOW) is None


def test_divergence_ignores_a_rise_too_small_to_matter() -> None:
    assert reward_truth_divergence(list(UP / 100), [0.5] * 20, WINDOW) is None


def test_the_slope_is_least_squares_and_white_noise_keeps_nearly_the_plain_p_value() -> None:
    values = 0.01 * np.arange(20) + np.random.default_rng(3).normal(0, 0.05, 20)
    slope, p = trend(values)
    plain = stats.linregress(np.arange(20), values, alternative="greater")
    assert slope == pytest.approx(plain.slope) and plain.pvalue <= p < 0.2


def test_the_trend_test_keeps_its_level_on_white_noise() -> None:
    rng = np.random.default_rng(0)
    rate = np.mean([trend(rng.normal(size=20))[1] < 0.05 for _ in range(1000)])
    assert rate < 0.07


REQUESTS = [f"request number {i}" for i in range(20)]


def test_one_answer_for_many_different_requests_is_a_collapse_with_evidence() -> None:
    groups = [group(q, ["catch all", f"own {q}"]) for q in REQUESTS[:6]]
    groups += [group(q, [f"own {q}"]) for q in REQUESTS[6:]]
    alarm = output_collapse(groups, 0.3)
    assert alarm is not None and alarm.severity == pytest.approx(0.3)
    assert "'catch all' answers 6 of 20" in alarm.evidence
    assert alarm.evidence.count("request number") == 3
    assert output_collapse(groups, 0.31) is None


def test_the_same_request_many_times_is_no_collapse() -> None:
    same = [group("one request", ["a"]) for _ in range(30)]
    assert output_collapse(same, 0.2) is None
    others = [group(q, [f"own {q}"]) for q in REQUESTS]
    assert output_collapse(same + others, 0.2) is None


def test_an_answer_that_is_verified_right_each_time_is_no_collapse() -> None:
    assert output_collapse([group(q, ["4"], truth=1.0) for q in REQUESTS], 0.2) is None
    assert output_collapse([group(q, ["4"], truth=None) for q in REQUESTS], 0.2) is not None


def test_one_stray_sibling_in_eight_does_not_count_for_its_task() -> None:
    groups = [group(q, ["stray", *[f"{q} {i}" for i in range(7)]]) for q in REQUESTS]
    assert output_collapse(groups, 0.2) is None


def test_few_tasks_or_no_groups_say_nothing_about_a_collapse() -> None:
    assert output_collapse([], 0.2) is None
    assert output_collapse([group(q, ["same"]) for q in REQUESTS[:7]], 0.2) is None


def test_long_answers_and_requests_that_begin_alike_stay_different() -> None:
    head = "y" * 500
    different = [group(head + q, [head + q]) for q in REQUESTS]
    assert output_collapse(different, 0.2) is None
    assert output_collapse([group(head + q, [head]) for q in REQUESTS], 0.2) is not None


def test_reward_bought_with_length_is_an_alarm() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 500, 64)
    rewards = lengths / 500 + rng.normal(0, 0.1, 64)
    alarm = length_exploitation(list(lengths), list(rewards))
    assert alarm is not None and alarm.severity > 0.8


def test_longer_answers_that_earn_more_because_they_are_right_are_no_alarm() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 64)
    lengths = 100 + 200 * truth + rng.integers(0, 50, 64)
    rewards = truth + rng.normal(0, 0.01, 64)
    assert length_exploitation(list(lengths), list(rewards)) is not None
    assert length_exploitation(list(lengths), list(rewards), list(truth)) is None


def test_length_is_silent_on_noise_constants_and_few_rollouts() -> None:
    rng = np.random.default_rng(2)
    raised = sum(
        length_exploitation(list(rng.normal(size=64)), list(rng.normal(size=64))) is not None
        for _ in range(200)
    )
    assert raised <= 2
    assert length_exploitation(list(range(64)), [1.0] * 64) is None
    assert length_exploitation(list(range(64)), [-float(n) for n in range(64)]) is None
    assert length_exploitation(list(range(10)), list(range(10))) is None
    with pytest.raises(ValueError, match="equally long"):
        length_exploitation([1.0], [1.0, 2.0])


def step(at: int, *, reward: float, truth: float | None, answer: str | None = None) -> list[Group]:
    return [
        group(
            f"request {at} {i}", [answer or f"a {at} {i} {j}" for j in range(4)],
            reward=reward, truth=truth,
        )
        for i in range(4)
    ]  # fmt: skip


def test_the_monitor_reports_an_alarm_once_while_it_stays_on() -> None:
    monitor = RunMonitor(DetectorsConfig())
    seen = []
    for at in range(40):
        rising = 0.2 + 0.02 * at
        seen.append([a.name for a in monitor.observe(step(at, reward=rising, truth=0.3))])
    names = [name for names in seen for name in names]
    assert names == ["reward_truth_divergence"] and seen.index(names) == 19
    assert [a.name for a in monitor.active] == ["reward_truth_divergence"]


def test_the_monitor_sees_a_collapse_that_no_single_step_is_large_enough_to_show() -> None:
    monitor = RunMonitor(DetectorsConfig())
    first = monitor.observe(step(0, reward=0.2, truth=0.0, answer="all"))
    second = monitor.observe(step(1, reward=0.2, truth=0.0, answer="all"))
    assert first == () and [a.name for a in second] == ["output_collapse"]


def test_the_monitor_sees_reward_bought_with_length() -> None:
    groups = []
    for q in REQUESTS[:6]:
        task = Task(id=q, env="f", prompt=(Message(role="user", content=q),), split="train")
        members = tuple(
            member(task, f"{q}{n}", reward=n / 10, truth=0.0, tokens=10 * n + 1) for n in range(8)
        )
        groups.append(Group(lease=0, task=task, members=members))
    alarms = RunMonitor(DetectorsConfig()).observe(groups)
    assert [a.name for a in alarms] == ["length_exploitation"]


def test_metrics_give_the_truth_only_where_the_groups_have_none() -> None:
    for own, expected in ((None, ["reward_truth_divergence"]), ("rises", [])):
        monitor = RunMonitor(DetectorsConfig())
        alarms: list[Alarm] = []
        for at in range(20):
            level = 0.02 * at
            groups = step(at, reward=level, truth=level if own else None)
            alarms += monitor.observe(groups, {"reward/mean": 0.1, "truth/mean": 0.5})
        assert [a.name for a in alarms] == expected


def test_a_step_without_groups_changes_nothing() -> None:
    monitor = RunMonitor(DetectorsConfig())
    before = monitor.state_dict()
    assert monitor.observe([]) == () and monitor.state_dict() == before


@given(cut=st.integers(0, 29), seed=st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_a_monitor_resumed_from_json_raises_what_an_uninterrupted_one_raises(
    cut: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    steps = [
        step(at, reward=0.2 + 0.02 * at + float(rng.normal(0, 0.02)), truth=0.3,
             answer="all" if at > 22 else None)
        for at in range(30)
    ]  # fmt: skip
    whole, monitor = RunMonitor(DetectorsConfig()), RunMonitor(DetectorsConfig())
    expected, actual = [], []
    for at, groups in enumerate(steps):
        if at == cut:
            state = json.loads(json.dumps(monitor.state_dict()))
            monitor = RunMonitor(DetectorsConfig())
            monitor.load_state_dict(state)
        expected.append(whole.observe(groups))
        actual.append(monitor.observe(groups))
    assert actual == expected and any(expected)
    assert monitor.state_dict() == whole.state_dict()


def test_a_200_step_honest_run_seldom_raises_anything() -> None:
    raised = 0
    for seed in range(16):
        rng = np.random.default_rng(seed)
        monitor = RunMonitor(DetectorsConfig())
        alarms: list[Alarm] = []
        for _ in range(200):
            metrics = {
                "reward/mean": 0.4 + float(rng.normal(0, 0.05)),
                "truth/mean": 0.4 + float(rng.normal(0, 0.05)),
            }
            alarms += monitor.observe([], metrics)
        raised += bool(alarms)
    assert raised <= 1
