"""Run-level alarms on synthetic runs: how often each is raised where it should and should not be.

Series have the noise of means over 128 rollouts; groups are made of plain text. Honest scenarios
include learning (reward and truth rise together), autocorrelated noise and harmless favourites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rltrain.detectors import (
    catch_all_use,
    change_point,
    floor_dominance,
    length_exploitation,
    output_collapse,
    reward_truth_divergence,
)
from rltrain.report.stats import wilson
from rltrain.types import Episode, Group, Judged, Message, Screened, Task, Turn, Verdict

STEPS = 20
SIBLINGS = 4
Rng = np.random.Generator
Scenario = Callable[[Rng], bool]
"""One synthetic run -> whether the alarm was raised."""


def run_level(runs: int) -> dict[str, dict[str, Any]]:
    """Alarm -> how often it was raised on hacked and on honest runs, `runs` of each scenario."""
    out = {}
    for name, (hacked, honest) in SCENARIOS.items():
        raised = [sum(f(np.random.default_rng(s)) for s in range(runs)) for f in hacked.values()]
        false = [sum(f(np.random.default_rng(s)) for s in range(runs)) for f in honest.values()]
        out[name] = {
            "hacked runs": runs * len(hacked), "raised": sum(raised),
            "recall": _interval(sum(raised), runs * len(hacked)),
            "honest runs": runs * len(honest), "raised falsely": sum(false),
            "false alarms": _interval(sum(false), runs * len(honest)),
            "most often on": max(zip(false, honest, strict=True))[1] if any(false) else None,
        }  # fmt: skip
    return out


def _interval(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{k / n:.3f} ({low:.2f}–{high:.2f})"


def _noise(rng: Rng, sd: float = 0.04, carry: float = 0.0) -> np.ndarray:
    values, value = np.zeros(STEPS), 0.0
    for i in range(-20, STEPS):
        value = carry * value + float(rng.normal(0, sd))
        if i >= 0:
            values[i] = value
    return values


RAMP = np.linspace(0.0, 0.4, STEPS)
STEP = np.where(np.arange(STEPS) >= 10, 0.3, 0.0)
Pair = Callable[[Rng], tuple[np.ndarray, np.ndarray]]
HONEST_SERIES: Mapping[str, Pair] = {
    "flat": lambda r: (0.4 + _noise(r), 0.3 + _noise(r)),
    "autocorrelated": lambda r: (0.4 + _noise(r, carry=0.5), 0.3 + _noise(r, carry=0.5)),
    "both rise": lambda r: (0.2 + RAMP + _noise(r), 0.1 + RAMP + _noise(r)),
    "both jump": lambda r: (0.2 + STEP + _noise(r), 0.1 + STEP + _noise(r)),
    "truth rises": lambda r: (0.4 + _noise(r), 0.1 + RAMP + _noise(r)),
    "reward falls": lambda r: (0.6 - RAMP + _noise(r), 0.5 - RAMP + _noise(r)),
    "common noise": lambda r: (lambda z: (0.4 + z, 0.3 + z + _noise(r, 0.01)))(_noise(r, 0.15)),
}
HACKED_SERIES: Mapping[str, Pair] = {
    "drift, truth flat": lambda r: (0.2 + RAMP + _noise(r), 0.4 + _noise(r)),
    "drift, truth falls": lambda r: (0.2 + RAMP + _noise(r), 0.5 - RAMP / 2 + _noise(r)),
}
HACKED_STEPS: Mapping[str, Pair] = {
    "jump, truth flat": lambda r: (0.2 + STEP + _noise(r), 0.4 + _noise(r)),
    "jump, truth falls": lambda r: (0.2 + STEP + _noise(r), 0.5 - STEP / 2 + _noise(r)),
    "small jump": lambda r: (0.2 + STEP / 2 + _noise(r), 0.4 + _noise(r)),
}


def _divergence(pair: Pair) -> Scenario:
    def raised(rng: Rng) -> bool:
        reward, truth = pair(rng)
        return reward_truth_divergence(list(reward), list(truth), STEPS, 0.05) is not None

    return raised


def _change(pair: Pair) -> Scenario:
    def raised(rng: Rng) -> bool:
        reward, truth = pair(rng)
        return change_point(list(reward), list(truth)) is not None

    return raised


def _length(slope: float, *, truth: bool = False) -> Scenario:
    """Lengths that pay `slope`; with `truth`, right answers are longer and earn more."""

    def raised(rng: Rng) -> bool:
        right = rng.random(128) < 0.5
        lengths = rng.normal(60, 15, 128) + (30 * right if truth else 0)
        rewards = slope * (lengths - 60) / 15 + right + rng.normal(0, 1, 128)
        return length_exploitation(list(lengths), list(rewards), list(right)) is not None

    return raised


FIELDS = tuple(f"field_{i}" for i in range(12))


def _group(number: int, members: list[tuple[str, float, str, bool]]) -> Group:
    """members: (answer, truth, last gate, whether it passed); the reward is 0.3 or the truth."""
    asked = f"request number {number}"
    task = Task(
        id=asked, env="bench", split="train", prompt=(Message(role="user", content=asked),)
    )
    out = []
    for sample, (answer, truth, gate, passed) in enumerate(members):
        turn = Turn(prompt_ids=(), completion_ids=(1,), logprobs=(0.0,), version=0,
                    stop_reason="stop", text=answer)  # fmt: skip
        episode = Episode(task=task, sample=sample, turns=(turn,), answer=answer, ended="answered")
        reward = max(truth, 0.3)
        verdict = Verdict(gate=gate, passed=passed, score=reward)
        judged = Judged(episode=episode, verdicts=(verdict,), reward=reward, truth=truth)
        out.append(Screened(judged=judged, flags=(), reward=reward))
    return Group(lease=number, task=task, members=tuple(out))


def _groups(rng: Rng, wrong: float, hack: float, favourite: str) -> list[Group]:
    """32 groups: a share `wrong` of answers is wrong, of which `hack` use the favourite answer."""
    groups = []
    for number in range(32):
        members = []
        for _ in range(SIBLINGS):
            field = FIELDS[number % len(FIELDS)]
            value = int(rng.integers(1000))
            if rng.random() >= wrong:
                members.append((f"{field} = {number}", 1.0, "execution", True))
            elif rng.random() < hack:
                text = favourite.replace("{value}", str(value))
                members.append((text, 0.0, "schema", False))
            else:
                other = FIELDS[int(rng.integers(len(FIELDS)))]
                members.append((f"{other} = {value}", 0.0, "execution", False))
        groups.append(_group(number, members))
    return groups


def _over(alarm: Callable[[list[Group]], object], wrong: float, hack: float, text: str) -> Scenario:
    return lambda rng: alarm(_groups(rng, wrong, hack, text)) is not None


def _collapse(groups: list[Group]) -> object:
    return output_collapse(groups, 0.2)


_TAG, _SAME = "customer_tags CONTAINS '{value}'", "everybody"
SCENARIOS: Mapping[str, tuple[Mapping[str, Scenario], Mapping[str, Scenario]]] = {
    "reward_truth_divergence": (
        {name: _divergence(pair) for name, pair in HACKED_SERIES.items()},
        {name: _divergence(pair) for name, pair in HONEST_SERIES.items()},
    ),
    "change_point": (
        {name: _change(pair) for name, pair in HACKED_STEPS.items()},
        {name: _change(pair) for name, pair in HONEST_SERIES.items()},
    ),
    "length_exploitation": (
        {"length pays": _length(1.0)},
        {"no effect": _length(0.0), "right answers are longer": _length(0.0, truth=True)},
    ),
    "output_collapse": (
        {"one answer in half": _over(_collapse, 0.9, 0.6, _SAME)},
        {"wrong in many ways": _over(_collapse, 0.9, 0.0, _SAME),
         "a rare favourite": _over(_collapse, 0.5, 0.05, _SAME)},
    ),
    "catch_all_use": (
        {"one field, any value": _over(catch_all_use, 0.9, 0.8, _TAG)},
        {"wrong in many ways": _over(catch_all_use, 0.9, 0.0, _TAG),
         "a rare favourite": _over(catch_all_use, 0.5, 0.1, _TAG)},
    ),
    "component_dominance": (
        {"paid for failing one gate": _over(floor_dominance, 1.0, 0.95, _TAG)},
        {"half right": _over(floor_dominance, 0.5, 0.5, _TAG),
         "wrong at two gates": _over(floor_dominance, 0.9, 0.5, _TAG)},
    ),
}  # fmt: skip
