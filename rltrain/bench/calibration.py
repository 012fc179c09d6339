"""Calibrate a judge: ask it about a ground-truth set, and measure everything that its release
gate (`rewards.judge.require`) may ask for.

    ground truth -> verdicts -> agreement, ceiling, alternative annotator test
                 -> master keys, both orders of pairs, the rollouts of a run
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rltrain import build
from rltrain.agreement import resample
from rltrain.bench import calibration_raters as raters
from rltrain.bench.calibration_probes import probe
from rltrain.bench.calibration_run import OnPolicy, drifted
from rltrain.bench.calibration_scores import agreement, by_kind, described, graded
from rltrain.bench.calibration_set import GroundTruth, Item
from rltrain.config import RunConfig
from rltrain.errors import JudgeFault, UserError
from rltrain.protocols import Audited, Check, Environment
from rltrain.report.stats import wilson
from rltrain.rewards.calibration import ask_all
from rltrain.rewards.judges import Judges, pairwise_check
from rltrain.rewards.pairwise import PairwiseJudge
from rltrain.rewards.stages import JUDGE, JUDGE_PAIRWISE, JUDGES

EPSILONS = (0.1, 0.15, 0.2)
"""Of the alternative annotator test: crowd workers, skilled annotators, experts."""
MOST_PAIRS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    truth: GroundTruth
    on_policy: OnPolicy | None = None
    probed: int = 20
    """Tasks under which every master key is tried; 0 for none."""
    epsilons: tuple[float, ...] = EPSILONS
    seed: int = 0


async def measure(
    config: RunConfig, env: Environment, plan: Plan, endpoint: str | None
) -> dict[str, Any]:
    """All figures, plain values; nan where one cannot be computed.

    Raises `UserError` for a judge that does not answer at all, and for one without a verdict on
    anything."""
    judges = build.judge(config, env, endpoint)
    try:
        await judges.preflight()
        check = rewarding(config, judges)
        found = await _against_raters(check, env, plan, _pass_at(config))
        wrong = _wrong(plan, _pass_at(config))
        if plan.probed and wrong:
            gated = any(stage.check in JUDGES for stage in config.rewards.stages)
            reward = build.rewarder(config, env, judges) if gated else None
            found["master_keys"] = await probe(reward, check, env, wrong)
        if judges.pairwise:
            found["position_flip"] = await _flips(judges.pairwise, env, plan)
        if plan.on_policy:
            found["on_policy"] = await _on_policy(check, plan.on_policy, plan.seed)
            shown = [_canonical(env, item) or item.answer for item in plan.truth.items]
            found["drift"] = drifted(shown, plan.on_policy)
        found["judge_metrics"] = judges.metrics()
    finally:
        await judges.aclose()
    return {**found, "measures": measures(found)}


def rewarding(config: RunConfig, judges: Judges) -> Check:
    """The check that rewards: `judge`, or the comparison with a reference if only that is a
    stage."""
    stages = {stage.check for stage in config.rewards.stages}
    if JUDGE_PAIRWISE in stages and JUDGE not in stages:
        check = pairwise_check(config.rewards.judge, judges)
        assert check is not None, "a stage compares, so that there is one"
        return check
    return judges


def measures(found: dict[str, Any]) -> dict[str, Any]:
    """The few numbers that a release gate looks at; None for what was not measured."""
    keys, flips = found.get("master_keys"), found.get("position_flip")
    side = (keys["through_gates"] or keys["judge_alone"]) if keys else {}
    return {
        "items": found["agreement"]["n"],
        "kappa": found["agreement"]["kappa"]["value"],
        "share_of_ceiling": found["ceiling"]["share"]["value"],
        "alt_test": {f"{test['epsilon']:g}": test["passed"] for test in found["alt_test"]},
        "master_key_fpr": side.get("worst"),
        "position_flip": flips["rate"] if flips else None,
        "compares": flips is not None,
        "synthetic": found["ground_truth"]["synthetic"],
    }


async def _against_raters(
    check: Check, env: Environment, plan: Plan, pass_at: float
) -> dict[str, Any]:
    truth = plan.truth
    readable = [_canonical(env, item) for item in truth.items]
    asked = [
        (item.task, text)
        for item, text in zip(truth.items, readable, strict=True)
        if text is not None
    ]
    answered = iter(await ask_all(check, asked))
    said = [None if text is None else next(answered) for text in readable]
    faults = sum(isinstance(one, JudgeFault) for one in said)
    verdicts = [None if isinstance(one, JudgeFault) else one for one in said]
    if not any(verdicts):
        raise UserError("the judge gave no verdict on any item of the ground-truth set")
    nan = float("nan")
    scores = np.array([nan if one is None else one.score for one in verdicts])
    passed = np.array([nan if one is None else float(one.passed) for one in verdicts])
    labels, decisions = truth.labels(pass_at), raters.decide(truth.scores, pass_at)
    units = [item.task.id for item in truth.items]
    draws = resample(units, plan.seed)
    nominal = bool(np.isin(truth.scores[np.isfinite(truth.scores)], (0.0, 1.0)).all())
    tests = [
        raters.alt_test(
            decisions if nominal else truth.scores, passed if nominal else scores,
            epsilon=epsilon, nominal=nominal,
        )
        for epsilon in plan.epsilons
    ]  # fmt: skip
    executed = np.array([nan if item.truth is None else item.truth for item in truth.items])
    return {
        "ground_truth": described(truth, decisions, labels),
        "verdicts": {"asked": len(asked), "unreadable": len(readable) - len(asked),
                     "faults": faults},
        "agreement": {
            **agreement(labels, passed, draws), **graded(truth, labels, scores, draws)
        },
        "truth": agreement(executed, passed, draws) if np.isfinite(executed).any() else None,
        "ceiling": raters.ceiling(decisions, passed, draws),
        "alt_test": tests,
        "by_kind": by_kind(truth.items, labels, passed),
    }  # fmt: skip


async def _on_policy(check: Check, current: OnPolicy, seed: int) -> dict[str, Any] | None:
    """Judge against executed truth on what the policy answers; None where no truth was measured."""
    items = current.items
    if not items:
        return None
    said = await ask_all(check, [(item.task, item.answer) for item in items])
    nan = float("nan")
    passed = np.array([nan if isinstance(one, JudgeFault) else float(one.passed) for one in said])
    truth = np.array([item.truth for item in items], dtype=np.float64)
    draws = resample([item.task.id for item in items], seed)
    return {**agreement(truth, passed, draws), "run": current.run, "steps": list(current.steps)}


async def _flips(judge: PairwiseJudge, env: Environment, plan: Plan) -> dict[str, Any]:
    """Pairs of different answers to one task, asked in both orders."""
    by_task: dict[str, list[tuple[Item, str]]] = {}
    for item in plan.truth.items:
        text = _canonical(env, item)
        if text is not None:
            by_task.setdefault(item.task.id, []).append((item, text))
    pairs = []
    for found in by_task.values():
        task, texts = found[0][0].task, [text for _, text in found]
        best = env.canonical(task, env.oracle().answer(task)) if isinstance(env, Audited) else None
        texts = list(dict.fromkeys([*texts, *([best] if best is not None else [])]))
        pairs += [(task, first, second) for first, second in pairwise(texts)]
    flips = asked = faults = 0
    for task, first, second in pairs[:MOST_PAIRS]:
        try:
            flips += (await judge.compare(task, first, second)).flipped
            asked += 1
        except JudgeFault:
            faults += 1
    rate = flips / asked if asked else None
    return {"pairs": asked, "flips": flips, "faults": faults, "rate": rate,
            "ci95": list(wilson(flips, asked))}  # fmt: skip


def _wrong(plan: Plan, pass_at: float) -> list[Item]:
    """One wrong answer per task, for the probes."""
    found: dict[str, Item] = {}
    for item, label in zip(plan.truth.items, plan.truth.labels(pass_at), strict=True):
        if (label if item.truth is None else item.truth) == 0.0:
            found.setdefault(item.task.id, item)
    return list(found.values())[: plan.probed]


def _canonical(env: Environment, item: Item) -> str | None:
    return env.canonical(item.task, item.answer)


def _pass_at(config: RunConfig) -> float:
    """From which score a rater's verdict counts as a yes."""
    return config.rewards.judge.pass_at or 0.5
