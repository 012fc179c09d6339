"""The reward model as a gate: canonical answers only, and what breaks is a fault, never a 0."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from rltrain import build
from rltrain.config.compose import load_config
from rltrain.config.rewards import StageConfig
from rltrain.errors import JudgeFault, UserError
from rltrain.rewards import GatedReward, RewardModelCheck
from rltrain.rewards.reward_model import Scale, Scorer, stamp
from rltrain.rollout.render import Renderer
from rltrain.types import Screened
from tests.rewards.reward_fakes import FakeEnvironment, failing, make_episode, make_task, passing

STAGE = StageConfig(check="reward_model")


@pytest.fixture(scope="module")
def model(policy: Path, renderer: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved classifier with random weights and a scale: any weights make a gate."""
    folder = tmp_path_factory.mktemp("reward")
    torch.manual_seed(1)
    made = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    made.config.pad_token_id = renderer.tokenizer.pad_token_id
    stamp(made, [-1.0, 1.0])  # centre 0, spread 1
    made.save_pretrained(folder)
    renderer.tokenizer.save_pretrained(folder)
    return folder


def judged(gate: RewardModelCheck, answer: str, *before: StageConfig, **checks: Any) -> Screened:
    gates = GatedReward([*before, STAGE], FakeEnvironment(checks), reward_model=gate)
    return asyncio.run(gates.judge_episode(make_episode(answer)))


def test_the_score_is_the_models_value_on_the_canonical_answer(model: Path) -> None:
    result = judged(RewardModelCheck(str(model), pass_at=0.0), "tag = 'vip'")
    value = Scorer.load(model).value(make_task().prompt, "TAG = 'VIP'")  # canonical: upper case
    (verdict,) = result.judged.verdicts
    assert result.reward == verdict.score == pytest.approx(1 / (1 + math.exp(-value)), rel=1e-6)
    assert (verdict.gate, verdict.passed) == ("reward_model", True)
    assert verdict.reason == f"value: {value:.4g}" and len(verdict.version) == 12


def test_two_spellings_of_one_answer_score_the_same(model: Path) -> None:
    gate = RewardModelCheck(str(model), pass_at=0.0)
    assert judged(gate, "Tag = 'Vip'").reward == judged(gate, "TAG = 'vip'").reward


def test_an_answer_without_a_canonical_form_fails_without_being_shown(model: Path) -> None:
    gate = RewardModelCheck(str(model), pass_at=0.0)
    result = judged(gate, "please say yes ???")
    assert result.reward == 0 and result.judged.verdicts[0].reason.startswith("unparsed")
    assert gate._scorer is None, "the model was never loaded"


def test_a_gate_before_it_saves_the_model_the_work(model: Path) -> None:
    gate = RewardModelCheck(str(model), pass_at=0.0)
    assert judged(gate, "x", StageConfig(check="format"), format=failing()).reward == 0
    assert gate._scorer is None
    assert judged(gate, "x", StageConfig(check="format"), format=passing()).reward > 0


def test_an_answer_below_pass_at_fails_the_gate(model: Path) -> None:
    verdict = judged(RewardModelCheck(str(model), pass_at=1.0), "x").judged.verdicts[0]
    assert not verdict.passed and 0 < verdict.score < 1


def test_a_model_that_breaks_or_says_nan_is_a_fault(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = RewardModelCheck(str(model), pass_at=0.0)
    judged(gate, "x")
    assert gate._scorer is not None
    with torch.no_grad():
        gate._scorer.model.score.weight.fill_(math.nan)
    with pytest.raises(JudgeFault, match="gave nan"):
        judged(gate, "x")
    gate._scorer.model.model.embed_tokens.weight = torch.nn.Parameter(torch.zeros(2, 3))
    with pytest.raises(JudgeFault, match="failed on an answer"):
        judged(gate, "x")


def test_what_is_no_reward_model_is_refused_before_the_run(policy: Path, tmp_path: Path) -> None:
    for folder in (str(tmp_path), str(policy), str(tmp_path / "nowhere")):
        with pytest.raises(UserError, match="is no trained reward model; give runs/NAME/model"):
            RewardModelCheck(folder, pass_at=0.0)
    with pytest.raises(UserError, match=r"rewards.reward_model.folder is not set"):
        RewardModelCheck(None, pass_at=0.0)


def test_weights_that_cannot_be_loaded_stop_the_run(model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    with pytest.raises(UserError, match="no reward model can be loaded"):
        judged(RewardModelCheck(str(tmp_path), pass_at=0.0), "x")


def test_the_stage_is_chosen_in_the_config(model: Path) -> None:
    config = load_config(
        ["experiment=segments_cpu", "rewards=reward_model", f"rewards.reward_model.folder={model}"]
    )
    env = build.environment(config.environment)
    rewarder = build.rewarder(config, env, None)
    assert [stage.check for stage in rewarder.stages][-1] == "reward_model"
    with pytest.raises(UserError, match="is not set"):
        build.rewarder(load_config(["experiment=segments_cpu", "rewards=reward_model"]), env, None)


def test_a_stage_without_a_model_and_a_check_of_its_name_are_refused(model: Path) -> None:
    with pytest.raises(UserError, match="no reward_model was configured"):
        GatedReward([STAGE], FakeEnvironment({}))
    with pytest.raises(UserError, match="brings a check named 'reward_model'"):
        judged(RewardModelCheck(str(model), pass_at=0.0), "x", reward_model=passing())


def test_the_scale_by_hand() -> None:
    fake: Any = SimpleNamespace(config=SimpleNamespace(), state_dict=lambda: {})
    scale = stamp(fake, [1.0, 3.0, 5.0, 7.0])  # mean 4; deviations 3, 1, 1, 3: variance 20 / 4
    assert (scale.centre, scale.spread) == (4.0, math.sqrt(5))
    assert scale.score(4.0) == 0.5
    assert scale.score(4.0 + math.sqrt(5)) == pytest.approx(1 / (1 + math.exp(-1)))
    with pytest.raises(UserError, match="tells no answers apart"):
        stamp(fake, [2.0, 2.0])
    with pytest.raises(UserError, match="tells no answers apart"):
        stamp(fake, [math.nan, 2.0])


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_a_score_stays_in_the_unit_interval_and_keeps_the_order(
    a: float, b: float, spread: float
) -> None:
    scale = Scale(centre=1.0, spread=spread, version="v")
    low, high = sorted((a, b))
    assert 0 <= scale.score(low) <= scale.score(high) <= 1
