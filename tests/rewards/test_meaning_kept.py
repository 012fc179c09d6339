"""The reward files that come with the project pay what they paid when `meaning.json` was written.

Twelve held-out tasks, answered by the oracle and by every scripted adversary, under each file of
`configs/rewards/`. The judge and the reward model are stand-ins that depend on the canonical answer
alone: what is compared is the walk through the stages, not a model. To write the file again after a
change of meaning that is wanted: `python -m tests.rewards.test_meaning_kept`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from rltrain import build
from rltrain.config.compose import load_config
from rltrain.detectors import build_screen
from rltrain.protocols import Audited, Environment
from rltrain.rewards import GatedReward
from rltrain.types import Task, Verdict
from tests.rewards.reward_fakes import make_episode

PLACE = Path(__file__).with_name("meaning.json")
FILES = ("exact", "executed", "judged", "reward_model")


class Digest:
    """Scores by the digest of the canonical answer."""

    version = "1"

    def __init__(self, gate: str, pass_at: float) -> None:
        self.gate, self.pass_at = gate, pass_at

    async def __call__(self, task: Task, answer: str) -> Verdict:
        value = hashlib.sha256(f"{task.id} {answer}".encode()).digest()[0] / 255
        if self.gate == "judge":
            value = float(value > 0.5)
        return Verdict(gate=self.gate, passed=value >= self.pass_at, score=value)


AGENTS = (
    "oracle", "opt_out", "tag_catch_all", "tag_made_up", "invented_field", "invented_enum",
    "invented_id", "over_broad", "over_broad_on_top", "judge_suffix", "judge_second_line",
    "judge_prefix", "judge_in_string", "null", "echo", "constant",
)  # fmt: skip


def paid(name: str, env: Environment) -> list[list[Any]]:
    """[agent, reward, reward before the detectors' cap, the gates passed] of every answer."""
    config = load_config(["experiment=segments_cpu", f"rewards={name}"])
    rewards = GatedReward(
        config.rewards.stages,
        env,
        build_screen(config.detectors, env),
        Digest("judge", config.rewards.judge.pass_at),
        Digest("reward_model", config.rewards.reward_model.pass_at),
    )
    assert isinstance(env, Audited)
    agents = [agent for agent in (env.oracle(), *env.adversaries()) if agent.name in AGENTS]
    tasks = list(env.tasks("test", 0))[:240:20]

    async def walk() -> list[list[Any]]:
        rows = []
        for task in tasks:
            for agent in agents:
                result = await rewards.judge_episode(make_episode(agent.answer(task), task))
                passed = sum(verdict.passed for verdict in result.judged.verdicts)
                rows.append([agent.name, result.reward, result.judged.reward, passed])
        return rows

    return asyncio.run(walk())


@pytest.fixture(scope="module")
def env() -> Environment:
    return build.environment(load_config(["experiment=segments_cpu"]).environment)


@pytest.mark.parametrize("name", sorted(json.loads(PLACE.read_text())))
def test_every_reward_file_pays_exactly_what_it_paid(name: str, env: Environment) -> None:
    was = json.loads(PLACE.read_text())[name]
    assert len({row[1] for row in was}) > 1  # else there is nothing to tell apart
    assert paid(name, env) == was


if __name__ == "__main__":
    config = load_config(["experiment=segments_cpu"])
    made = {name: paid(name, build.environment(config.environment)) for name in FILES}
    rows = {k: "[\n" + ",\n".join(json.dumps(r) for r in v) + "]" for k, v in made.items()}
    PLACE.write_text("{" + ",\n".join(f"{json.dumps(k)}: {v}" for k, v in rows.items()) + "}\n")
