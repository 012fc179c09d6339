"""The linter refuses, in one sentence each, what a policy would find."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rltrain import build, cli
from rltrain.config.compose import config_dir, load_config
from rltrain.config.rewards import BonusConfig, LintConfig, RewardsConfig, StageConfig
from rltrain.errors import EnvironmentFault, UserError
from rltrain.protocols import Agent
from rltrain.rewards import GatedReward
from rltrain.rewards.lint import problems
from rltrain.rewards.probe import Probed, Unasked, probe, probe_quickly
from rltrain.types import Message, Task, Verdict
from tests.rewards.reward_fakes import FakeEnvironment, Recorder, failing, make_task, passing

SCHEMA = {"check": "json_schema", "schema": {"type": "object"}}
FUNCTION = {"check": "function", "function": "a.b:c"}


def rewards(*stages: dict[str, Any], **parts: Any) -> RewardsConfig:
    return RewardsConfig.model_validate({"stages": stages, **parts})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (rewards({"check": "a", "on_fail": 0.2}, {"check": "b", "on_fail": 0.1}),
         "fails a earns 0.2 and one that fails b, which is later, 0.1"),
        (rewards({"check": "a"}, {"check": "b", "band": [0.5, 1]}), "strictly"),
        (rewards({"check": "a", "on_fail": 0.1}), "passes as little as 0; give the gate that pays"),
        (rewards({"check": "a", "on_fail": 0.5, "band": [0.5, 1]}), "a band above 0.5"),
        (rewards({"check": "judge", "on_fail": 0.7}, judge={"verdicts": {"y": 1.0, "m": 0.6}}),
         "passes as little as 0.6"),
        (rewards({"check": "a", "band": [0.2, 0.6]}, {"check": "b", "on_fail": 0.1,
                 "band": [0.5, 1]}), "passes, paid by a can earn 0.6"),
        (rewards({"check": "a", "band": [0.2, 0.4]}, {"check": "judge", "on_fail": 0.1,
                 "band": [0.5, 1]}), "the band of 'a' is unreachable"),
        (rewards({"check": "judge"}, judge={"verdicts": {"y": 0.4, "n": 0.0}}),
         "no answer can pass 'judge'"),
        (rewards({**FUNCTION, "pass_at": 0.0}, {"check": "a"}), "'function' lets every answer"),
        (rewards(SCHEMA, {**SCHEMA, "name": "again"}), "'again' asks again what 'json_schema'"),
        (rewards({"check": "judge", "sees": "raw"}), "must not see what the policy wrote"),
        (rewards({"check": "a", "timeout_s": 130}), "longer than rollout.timeout_s=120"),
        (rewards({"check": "judge"}, judge={"timeout_s": 130}), "judge.timeout_s=130, longer"),
        (rewards({"check": "judge", "timeout_s": 3}), "shorter than rewards.judge.timeout_s=30"),
        (rewards({"check": "program", "timeout_s": 3}), "shorter than sandbox.time_s=5"),
        (rewards({"check": "a"}, judge={"verdicts": {"y": math.nan}}),
         "rewards.judge.verdicts.y is nan"),
        (rewards({"check": "a"}, judge={"timeout_s": math.inf}), "rewards.judge.timeout_s is inf"),
        (rewards({"check": "reward_model"}, bonus={"brevity": {"weight": 0.1}}),
         "'reward_model' never gives the full score"),
        (rewards({"check": "screen", "band": [0, 1]}, {"check": "a"}), "on_fail and nothing else"),
    ],
)  # fmt: skip
def test_the_config_alone_shows_it(given: RewardsConfig, message: str) -> None:
    assert [text for text in problems(given, 120.0) if message in text], problems(given, 120.0)


def test_bonuses_that_leave_the_band_are_refused_with_the_config_and_by_the_linter() -> None:
    with pytest.raises(ValueError, match="less than 1"):
        rewards({"check": "a"}, bonus={"brevity": {"weight": 0.6}, "turns": {"weight": 0.4}})
    parts = {"brevity": BonusConfig(weight=0.6), "turns": BonusConfig(weight=0.6)}
    unchecked = rewards({"check": "a"}).model_copy(update={"bonus": parts})
    assert "leave the passing band" in problems(unchecked, 120.0)[0]


@pytest.mark.parametrize("name", sorted(p.stem for p in (config_dir() / "rewards").glob("*.yaml")))
def test_the_reward_files_of_the_project_have_no_problem(name: str) -> None:
    config = load_config(["experiment=segments_cpu", f"rewards={name}"])
    assert problems(config.rewards, config.rollout.timeout_s) == []


class Oracle:
    name = "oracle"

    def answer(self, task: Task) -> str:
        return str(task.data["gold"])


class Parity(FakeEnvironment):
    """Is the number even? The canonical answer is one word, so a judge sees no other."""

    def tasks(self, split: str, seed: int) -> Iterator[Task]:
        for n in range(100):
            yield make_task(f"is {n} even", gold="no" if n % 2 else "yes")

    def canonical(self, task: Task, answer: str) -> str | None:
        return answer.strip() if answer.strip() in ("yes", "no") else None

    def oracle(self) -> Agent:
        return Oracle()

    def adversaries(self) -> Sequence[Agent]:
        return ()


class Chatty(Parity):
    """Shows the judge what was written."""

    def canonical(self, task: Task, answer: str) -> str | None:
        return answer


class Right:
    version = "1"

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, task: Task, answer: str) -> Verdict:
        self.asked += 1
        right = answer.strip() == task.data["gold"]
        return Verdict(gate="right", passed=right, score=float(right))


def tried(stages: list[dict[str, Any]], env: FakeEnvironment, **lint: Any) -> Probed:
    parts = [StageConfig.model_validate(stage) for stage in stages]
    gates = GatedReward(parts, env, None, Unasked(), Unasked())
    tasks = [task for _, task in zip(range(20), env.tasks("train", 0), strict=False)]
    return asyncio.run(probe(gates, tasks, LintConfig(**lint)))


def test_a_floor_that_a_constant_answer_collects_is_refused() -> None:
    env = Parity({"a": passing(), "right": Right()})
    found = tried([{"check": "right"}], env)
    constant = found.tried["the constant answer 'yes'"]
    assert constant.reward == 0.5 and found.tried["oracle"].reward == 1.0
    assert found.tried["one task's right answer to all (1)"].reward == 0.5
    assert "the reward pays 0.50 on average for the constant answer 'yes' ('yes')" in (
        found.problems[0]
    )
    assert tried([{"check": "right"}], env, max_constant=0.5).problems == ()
    floor = tried([{"check": "right", "on_fail": 0.3, "band": [0.9, 1]}], env)
    assert any("'empty'" in text and "pays 0.30" in text for text in floor.problems)
    assert floor.tried["an echo of the request"].reward == pytest.approx(0.3)


def test_a_gate_that_no_right_answer_passes_makes_the_rest_unreachable() -> None:
    env = Parity({"never": failing(), "right": Right()})
    found = tried([{"check": "never"}, {"check": "right"}], env)
    assert any("none of 20 right answers passes 'never' (wrong)" in p for p in found.problems)


def test_models_are_not_asked_and_what_reaches_them_is_counted() -> None:
    right = Right()
    env = Parity({"right": right})
    found = tried([{"check": "right"}, {"check": "judge"}], env, max_constant=0.5)
    assert found.problems == ()
    assert found.tried["the constant answer 'yes'"].asked_a_model == 0.5
    assert found.tried["oracle"].asked_a_model == 1.0


def test_a_judge_that_is_shown_what_the_policy_wrote_is_refused() -> None:
    stages = [{"check": "judge"}]
    assert "is shown what the policy wrote" in tried(stages, Chatty({})).problems[0]
    assert tried(stages, Chatty({}), free_text=True).problems == ()
    assert tried(stages, Parity({})).problems == ()


def test_a_prompt_that_shows_it_is_refused_although_the_canonical_form_does_not() -> None:
    class Leaky(Parity):
        def canonical(self, task: Task, answer: str) -> str | None:
            self.said = answer
            return "yes"

        def judge_prompt(self, task: Task, canonical: str) -> Sequence[Message]:
            return (Message(role="user", content=f"{self.said} -> {canonical}?"),)

    assert "is shown what the policy wrote" in tried([{"check": "judge"}], Leaky({})).problems[0]


def test_the_start_of_a_run_asks_nothing_that_costs_and_leaves_faults_to_the_run() -> None:
    right = Right()
    env = Parity({"right": right, "broken": Recorder(EnvironmentFault("down"))})
    tasks = [task for _, task in zip(range(4), env.tasks("train", 0), strict=False)]

    def quickly(**stage: Any) -> Probed:
        gates = GatedReward([StageConfig(**stage)], env)
        return asyncio.run(probe_quickly(gates, tasks, LintConfig()))

    assert quickly(check="right", cost=1.0).problems == () and right.asked == 0
    assert any("'yes'" in text for text in quickly(check="right").problems)
    assert not quickly(check="broken").complete


def test_the_command_says_what_every_outcome_pays_and_ends_with_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    stages = [{"check": "format", "on_fail": 0.3}, {"check": "execution", "band": [0.5, 1.0]}]
    path.write_text(json.dumps({"stages": stages}))
    with pytest.raises(SystemExit) as ended:
        cli.main(["lint-rewards", str(path), "environment=segments"])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert "fails format: 0.3\n" in out and "passes: 0.5 to 1" in out
    assert err.startswith("error: rewards.stages: an answer that fails format earns 0.3")
    for text, message in (
        ("stages: [{check: format, bond: 1}]", "'rewards.stages.0.bond' does not exist"),
        ("stages: [{check: fromat}]", "Did you mean 'format'"),
        ("- 1", "holds no reward"),
    ):
        path.write_text(text)
        with pytest.raises(SystemExit):
            cli.main(["lint-rewards", str(path), "experiment=segments_cpu"])
        assert message in capsys.readouterr().err


def test_a_run_does_not_start_with_a_reward_that_the_linter_refuses() -> None:
    config = load_config(
        ["experiment=segments_cpu", "rewards.stages=[{check: format, on_fail: 0.2}]"]
    )
    env = build.environment(config.environment)
    with pytest.raises(UserError, match="give the gate that pays a band above"):
        build.check_rewards(config, env)
    build.check_rewards(load_config(["experiment=segments_cpu"]), env)
