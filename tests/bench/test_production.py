"""The production table: its arms are real configs, and its figures are counted from what a run
stored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from scipy.stats import pearsonr

from rltrain import build
from rltrain.bench.production import ARMS, late, shares, text
from rltrain.bench.runs import FLAGSHIP
from rltrain.config.compose import load_config
from rltrain.types import Episode, Screened, Turn
from tests.report.synthetic import write_run


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_an_arm_is_a_config_whose_reward_ends_with_the_judge(arm: Any) -> None:
    config = load_config([FLAGSHIP, *arm.overrides])
    stages = [stage.check for stage in config.rewards.stages]
    assert stages[-1] == "judge" and "execution" not in stages
    assert ("schema" in stages) == (arm.validator != "v1")
    assert ("screen" in stages) == (arm.validator == "v3")
    actions = {part.action for part in config.detectors.rollout.values()}
    assert actions == ({"zero"} if arm.validator == "v3" else {"keep"})


def test_the_linter_refuses_the_reward_that_adds_up_and_no_other() -> None:
    for arm in ARMS:
        said = [part for part in arm.overrides if not part.startswith("rewards.lint")]
        config = load_config([FLAGSHIP, *said])
        found = build.lint_rewards(config, build.environment(config.environment), quick=True)
        assert bool(found.problems) == (arm.name == "added"), found.problems


def test_judge_and_truth_are_compared_on_the_last_steps(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=10)
    said, true = [], []
    for step in (9, 10):
        for row in pq.read_table(run / "rollouts" / f"step-{step:05d}.parquet").to_pylist():
            verdicts = {gate["gate"]: gate["passed"] for gate in row["gates"]}
            if "judge" in verdicts and row["truth"] is not None:
                said.append(verdicts["judge"])
                true.append(row["truth"] == 1.0)
    found = late(run, 10)
    wrong = [yes for yes, right in zip(said, true, strict=True) if not right]
    assert found["n"] == len(said) > 20
    assert found["wrong_passed"] == pytest.approx(sum(wrong) / len(wrong))
    assert found["pearson"] == pytest.approx(pearsonr(said, true)[0])


async def _screened(answer: str | None) -> Screened:
    """One task's answer under validator v3; None is its right answer."""
    config = load_config([FLAGSHIP, "rewards=exact"])
    env = build.environment(config.environment)
    task = next(task for task in env.tasks("test", 0) if "tag" not in task.data["gold"])
    said = str(task.data["gold"]) if answer is None else answer
    turn = Turn(
        prompt_ids=(), completion_ids=(), logprobs=(), version=0, stop_reason="stop", text=said
    )
    episode = Episode(task=task, sample=0, turns=(turn,), answer=said, ended="answered")
    return await build.rewarder(config, env, None).judge_episode(episode)


async def _examples() -> list[Screened]:
    right = await _screened(None)
    unparsed = await _screened("rfm_group = = 'NEW'")
    return [right, right, unparsed, await _screened("customer_tags CONTAINS 'enabled'")]


def test_one_validator_counts_valid_exact_and_hacks() -> None:
    found = shares(asyncio.run(_examples()))
    assert found["n"] == 4
    assert found["exact"] == 0.5 and found["valid"] == 0.75 and found["hacks"] == 0.25
    assert found["flags"]["tag_catch_all"] == 0.25
    low, high = found["exact_ci95"]
    assert low < 0.5 < high


def test_the_table_has_a_row_for_the_start_and_one_for_each_arm() -> None:
    end = {"n": 600, "flags": {"opt_out": 0.05, "over_broad": 0.0}}
    for name in ("exact", "valid", "hacks"):
        end |= {name: 0.5, f"{name}_ci95": [0.46, 0.54]}
    arm = {
        "title": "gates", "validator": "v2", "judge": "v1", "before": end, "after": end,
        "steps": 9, "reward": {"first": 0.2, "last": 0.9}, "judge_kappa": 0.1,
        "judge_ci95": [0.0, 0.2], "late": {"pearson": None, "wrong_passed": 0.8},
        "command": "rltrain train x",
    }  # fmt: skip
    lines = text({"seed": 0, "arms": [arm]}).splitlines()
    assert "| start | 0.500 [0.460, 0.540] |" in lines[4]
    assert "opt_out 5.0%" in lines[5] and "0.20 → 0.90" in lines[5] and "| – | 0.800 |" in lines[5]
