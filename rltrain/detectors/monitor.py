"""The run-level alarms, fed one step at a time.

    groups of a step -> RunMonitor.observe -> alarms that were not on in the step before

Its memory is a few hundred numbers and short strings, and goes into a checkpoint and back as plain
JSON, so that a resumed run raises the same alarms as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from rltrain.config.rewards import DetectorsConfig
from rltrain.detectors.change_point import change_point
from rltrain.detectors.dominance import floor_dominance
from rltrain.detectors.run_level import (
    MIN_POINTS,
    Alarm,
    TaskAnswers,
    collapse,
    length_exploitation,
    reward_truth_divergence,
    task_answers,
)
from rltrain.detectors.usage import TaskNames, catch_all, task_names
from rltrain.errors import UserError
from rltrain.types import Group, Screened

REMEMBERED_TASKS = 64
"""Most recent groups over which a collapse is looked for, whatever the groups per step."""
MONITOR_ALPHA = 0.002
"""Stricter than one test's 5 %, because a run tests at every step. Measured on honest runs of 200
steps: 0 of 60 raised an alarm on white noise, 2 of 60 with a lag-1 autocorrelation of 0.5."""
ALARMS = (
    "output_collapse", "reward_truth_divergence", "length_exploitation", "change_point",
    "catch_all_use", "component_dominance",
)  # fmt: skip
REWARD = "reward/mean"
TRUTH = "truth/mean"
"""Metrics that stand in where the groups themselves have no reward or no measured truth."""


class RunMonitor:
    """Watches a whole run. One instance per run, where all groups of a step come together."""

    def __init__(self, config: DetectorsConfig) -> None:
        """Raises `UserError` for an alarm in the config that does not exist."""
        unknown = sorted(set(config.alarms) - set(ALARMS))
        if unknown:
            raise UserError(
                f"detectors.alarms: there is no alarm {unknown[0]!r}; there are {', '.join(ALARMS)}"
            )
        self._config = config
        length = max(config.divergence_window, MIN_POINTS)
        self._tasks: deque[TaskAnswers] = deque(maxlen=REMEMBERED_TASKS)
        self._names: deque[TaskNames] = deque(maxlen=REMEMBERED_TASKS)
        self._rewards: deque[float] = deque(maxlen=length)
        self._truths: deque[float | None] = deque(maxlen=length)
        self._on: dict[str, Alarm] = {}

    @property
    def active(self) -> tuple[Alarm, ...]:
        """Alarms that are on after the last step, new or not."""
        return tuple(self._on.values())

    def observe(
        self, groups: Sequence[Group], metrics: Mapping[str, float] | None = None
    ) -> tuple[Alarm, ...]:
        """Take in one step and return the alarms that it turned on.

        Args:
            groups: all groups of the step. Dropped members count in nothing.
            metrics: `reward/mean` and `truth/mean` are taken where the groups give none.

        An alarm that stays on is returned once; see `active`. It is returned again after it went
        off in between.
        """
        members = [m for group in groups for m in group.members if not m.dropped]
        self._tasks.extend(task_answers(group) for group in groups if group.members)
        self._names.extend(task_names(group) for group in groups if group.members)
        self._remember_means(members, metrics or {})
        found = (
            collapse(self._tasks, self._config.collapse_share),
            reward_truth_divergence(
                self._rewards, self._truths, self._config.divergence_window, MONITOR_ALPHA
            ),
            length_exploitation(*_length_data(groups)),
            change_point(self._rewards, self._truths, MONITOR_ALPHA),
            catch_all(self._names),
            floor_dominance(groups),
        )
        now = {a.name: a for a in found if a is not None and a.name in self._config.alarms}
        new = tuple(alarm for name, alarm in now.items() if name not in self._on)
        self._on = now
        return new

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, as plain JSON values."""
        return {
            "tasks": [[task.prompt, list(task.answers)] for task in self._tasks],
            "names": [[t.prompt, list(t.wrong), list(t.right), list(t.mixed)] for t in self._names],
            "rewards": list(self._rewards),
            "truths": list(self._truths),
            "on": [[alarm.name, alarm.evidence, alarm.severity] for alarm in self._on.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken. A shorter window keeps the newest steps."""
        for target in (self._tasks, self._names, self._rewards, self._truths):
            target.clear()
        self._tasks.extend(
            TaskAnswers(prompt=prompt, answers=tuple(answers)) for prompt, answers in state["tasks"]
        )
        # Absent from what earlier versions saved.
        self._names.extend(
            TaskNames(prompt=p, wrong=tuple(w), right=tuple(r), mixed=(bool(m[0]), bool(m[1])))
            for p, w, r, m in state.get("names", [])
        )
        self._rewards.extend(state["rewards"])
        self._truths.extend(state["truths"])
        self._on = {
            name: Alarm(name=name, evidence=evidence, severity=severity)
            for name, evidence, severity in state["on"]
        }

    def _remember_means(self, members: Sequence[Screened], metrics: Mapping[str, float]) -> None:
        """Both means over the same rollouts: those whose truth was measured, if any was."""
        known = [m for m in members if m.judged.truth is not None]
        truth = _mean([m.judged.truth or 0.0 for m in known])
        reward = _mean([m.reward for m in known or members])
        truth = metrics.get(TRUTH) if truth is None else truth
        reward = metrics.get(REWARD) if reward is None else reward
        if reward is None or not math.isfinite(reward):
            return
        self._rewards.append(reward)
        self._truths.append(truth if truth is None or math.isfinite(truth) else None)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _length_data(
    groups: Sequence[Group],
) -> tuple[list[float], list[float], list[tuple[int, float | None]]]:
    """Sampled tokens, reward and (group, truth) of every rollout that is trained on."""
    lengths: list[float] = []
    rewards: list[float] = []
    strata: list[tuple[int, float | None]] = []
    for number, group in enumerate(groups):
        for member in group.members:
            if not member.dropped:
                turns = member.judged.episode.turns
                lengths.append(float(sum(len(turn.completion_ids) for turn in turns)))
                rewards.append(member.reward)
                strata.append((number, member.judged.truth))
    return lengths, rewards, strata
