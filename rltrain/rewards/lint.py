"""What is wrong with a gated reward before anybody is trained by it.

`problems` reads the config alone. `probe` also asks: answers that do not look at the task go
through every gate that is not a model, and the judge's prompt is searched for what a policy wrote.
A problem is one sentence that says what to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rltrain.config.rewards import RewardsConfig, StageConfig
from rltrain.rewards.ladder import SILENT, is_strict, never_fails, overlaps, paying, scores


def problems(rewards: RewardsConfig, request_s: float) -> list[str]:
    """Sentences, none if all is well.

    request_s: the rollout's `timeout_s`, which no check may outlast.
    """
    endless = list(_not_finite("rewards", rewards.model_dump()))
    if endless:
        return endless  # nothing below can be compared
    found = [*_order(rewards), *_reach(rewards), *_bonuses(rewards)]
    for stage in rewards.stages:
        found += _stage(stage, rewards, request_s)
    return found


def _not_finite(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{key} is {value}; give a finite number"
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _not_finite(f"{key}.{name}", inner)
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _not_finite(f"{key}.{position}", inner)


def _order(rewards: RewardsConfig) -> Iterator[str]:
    for worse, better in overlaps(rewards):
        pays, least = f"{worse.high:g}", f"{better.low:g}"
        if better.name.startswith("fails"):
            yield (
                f"rewards.stages: an answer that {worse.name} earns {pays} and one that "
                f"{better.name}, which is later, {least}; let on_fail rise from gate to gate"
                + (" (strictly, since there is a band)" if is_strict(rewards) else "")
            )
        else:
            yield (
                f"rewards.stages: an answer that {worse.name} can earn {pays} and one that "
                f"{better.name} as little as {least}; give the gate that pays a band above {pays}, "
                "or lower on_fail"
            )


def _reach(rewards: RewardsConfig) -> Iterator[str]:
    payers = paying(rewards)
    for position, stage in enumerate(rewards.stages):
        if scores(stage, rewards) is None:
            yield (
                f"rewards.stages: no answer can pass {stage.gate!r} (no score of "
                f"rewards.judge.verdicts reaches pass_at={rewards.judge.pass_at:g}), so that "
                "passing is unreachable; lower pass_at"
            )
        last = stage == payers[-1]
        if not last and stage.check not in SILENT and never_fails(stage, rewards):
            yield (
                f"rewards.stages: {stage.gate!r} lets every answer pass and does not decide what "
                "passing earns, so that it does nothing; raise pass_at, or put it last"
            )
        if stage.band and stage not in payers:
            yield (
                f"rewards.stages: the band of {stage.gate!r} is unreachable, since a later gate "
                "decides what passing earns; leave it out"
            )
        twins = [other for other in rewards.stages[:position] if _same(other, stage)]
        if twins:
            yield (
                f"rewards.stages: {stage.gate!r} asks again what {twins[0].gate!r} asked, so that "
                "it is unreachable for answers that fail it; leave it out"
            )


def _same(one: StageConfig, other: StageConfig) -> bool:
    skip = {"name", "on_fail", "band", "cost", "timeout_s", "cache", "validator_version"}
    return one.model_dump(exclude=skip) == other.model_dump(exclude=skip)


def _bonuses(rewards: RewardsConfig) -> Iterator[str]:
    total = sum(part.weight for part in rewards.bonus.values())
    if total >= 1:
        yield (
            f"rewards.bonus: the weights sum to {total:g}, so that bonuses leave the passing band; "
            "let them sum to less than 1"
        )
    last = paying(rewards)[-1]
    best = (scores(last, rewards) or (0.0, 0.0))[1]
    if rewards.bonus and (best < 1 or last.check == "reward_model"):
        yield (
            f"rewards.bonus: {last.gate!r} never gives the full score of 1 to which bonuses are "
            "paid; leave them out, or put another gate last"
        )


def _stage(stage: StageConfig, rewards: RewardsConfig, request_s: float) -> Iterator[str]:
    name = f"rewards.stages: {stage.gate!r}"
    if stage.check in SILENT and (stage.band or stage.cache or stage.cost or stage.timeout_s):
        yield f"{name} is no check of an answer: it takes on_fail and nothing else"
    judged = stage.check in ("judge", "judge_pairwise")
    if (judged or stage.check == "reward_model") and stage.sees == "raw":
        yield (
            f"{name} must not see what the policy wrote, which can talk to it; leave out sees=raw "
            "(it sees the environment's canonical form)"
        )
    limits = {"timeout_s": stage.timeout_s, "judge.timeout_s": rewards.judge.timeout_s}
    for key, limit_s in limits.items():
        if limit_s and limit_s > request_s and (judged or key == "timeout_s"):
            yield (
                f"{name} has {key}={limit_s:g}, longer than rollout.timeout_s={request_s:g}; lower "
                "it, or raise the rollout's"
            )
    if judged:
        yield from _learned(name, rewards)
    least_s = rewards.judge.timeout_s if judged else stage.sandbox.time_s
    if stage.timeout_s and (judged or stage.check == "program") and stage.timeout_s < least_s:
        key = "rewards.judge.timeout_s" if judged else "sandbox.time_s"
        yield (
            f"{name} has timeout_s={stage.timeout_s:g}, shorter than {key}={least_s:g}, within "
            "which an answer is still allowed; raise it"
        )


def _learned(name: str, rewards: RewardsConfig) -> Iterator[str]:
    """The embedded judge is asked only what it was trained on."""
    judge = rewards.judge
    by_rubric = any(member.rubric for member in judge.members() if member.endpoint is None)
    compares = name.endswith("'judge_pairwise'") and judge.endpoint is None
    if by_rubric or compares:
        what = "compare" if compares else "read a rubric"
        yield (
            f"{name}: the embedded judge has learned the environment's prompt and cannot {what}; "
            "set rewards.judge.endpoint"
        )
