"""The example of docs/rewards.md is right, and pays what its table says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import yaml

from rltrain import build
from rltrain.commands.lint_rewards import main
from rltrain.config.compose import load_config
from rltrain.config.rewards import RewardsConfig
from rltrain.detectors import build_screen
from rltrain.rewards import GatedReward
from tests.rewards.reward_fakes import make_episode

DOC = Path(__file__).parents[2] / "docs" / "rewards.md"


def test_the_documented_reward_passes_the_linter_and_pays_what_the_table_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = DOC.read_text(encoding="utf-8")
    example = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0]
    path = tmp_path / "my_reward.yaml"
    path.write_text(example)
    main([str(path), "experiment=segments_cpu", "rewards.lint.tasks=8"])
    said = capsys.readouterr().out
    assert "fails execution: 0.1\n" in said and "passes: 0.5 to 1\n" in said

    config = load_config(["experiment=segments_cpu"])
    env = build.environment(config.environment)
    rewards = RewardsConfig.model_validate(yaml.safe_load(example))
    gates = GatedReward(
        rewards.stages, env, build_screen(config.detectors, env), bonus=rewards.bonus
    )
    task = next(task for task in env.tasks("test", 0) if task.data["answerable"])
    gold = str(task.data["gold"])

    def paid(answer: str) -> float:
        return asyncio.run(gates.judge_episode(make_episode(answer, task))).reward

    assert len(gold) < 100
    right, longer = paid(gold + " " * (100 - len(gold))), paid(gold + " " * (400 - len(gold)))
    table = re.findall(r"\*\*([\d.]+)\*\* \|", text)
    others = ("amount_spent > 123456", "total_spent > 1", "I would say so.", "")
    assert [right, longer, *map(paid, others)] == pytest.approx([float(v) for v in table])
