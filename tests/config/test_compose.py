"""What a command line becomes, and what is said about a mistake in it: one line with the key."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rltrain.config.compose import load_config
from rltrain.config.model import TinyModelConfig
from rltrain.errors import UserError

BASE = ("experiment=segments_cpu",)


def message(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config([*BASE, *overrides])
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        # unknown keys, with the nearest one that exists
        ("rollout.group_sise=3", ["'rollout.group_sise' does not exist", "'rollout.group_size'?"]),
        ("max_lag=3", ["'max_lag' does not exist", "did you mean 'rollout.max_lag'?"]),
        ("++rollout.max_lga=1", ["'rollout.max_lga' does not exist", "'rollout.max_lag'?"]),
        ("model.hiden_size=3", ["'model.hiden_size'", "'model.hidden_size'?"]),
        ("model.warmup.stpes=1", ["'model.warmup.stpes'", "'model.warmup.steps'?"]),
        ("rewards.judge.tiny.stpes=3", ["does not exist", "'rewards.judge.tiny.steps'?"]),
        ("train.lora.rnk=4", ["'train.lora.rnk' does not exist", "'train.lora.rank'?"]),
        ("+qqqqqqqq=1", ["'qqqqqqqq' does not exist", "--cfg job` shows all keys"]),
        # wrong types
        ("rollout.group_size=many", ["rollout.group_size", "valid integer", "'many'"]),
        ("seed=0.5", ["config seed", "fractional part", "0.5"]),
        ("overwrite=maybe", ["config overwrite", "boolean", "'maybe'"]),
        ("algo.loss_args={clip_high: high}", ["algo.loss_args.clip_high", "number", "'high'"]),
        # values that are not allowed
        ("rollout.group_size=0", ["rollout.group_size", "greater than or equal to 1", "0"]),
        ("precision.compute=fp8", ["precision.compute", "'fp32', 'bf16' or 'fp16'", "'fp8'"]),
        ("precision=fp8", ["precision/fp8", "available:", "bf16", "fp32_head"]),
        ("train.precision=fp16", ["train.precision is now precision", "precision=fp16"]),
        ("mismatch.stop.k4=1", ["'mismatch.stop.k4' does not exist", "'mismatch.stop.k3'?"]),
        ("name=a b", ["config name", "pattern", "'a b'"]),
        ("name=../up", ["config name", "pattern"]),
        ("environment.entry=x", ["environment.entry", "pattern", "'x'"]),
        ("detectors.rollout.opt_out.action=kill", ["opt_out.action", "'keep', 'zero' or 'drop'"]),
        ("rewards.stages=[]", ["rewards.stages", "at least 1"]),
        ("rewards.stages=[{check: a, on_fail: 3}]", ["rewards.stages.0.on_fail", "equal to 1"]),
        # options of a group
        ("model=tniy", ["model/tniy", "available:", "tiny", "qwen3_0_6b"]),
        ("experiment=nope", ["experiment/nope", "available:", "segments_cpu"]),
        # a value that has to be given, and a rule between keys
        ("model=local", ["'model.name' has no value", "model.name=…"]),
        ("model.max_length=64", ["rollout.max_new_tokens (72)", "model.max_length (64)"]),
        # not even an override
        ("rollout.group_size=[", ["'['"]),
        ("garbage", ["'garbage'"]),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(override: str, parts: list[str]) -> None:
    text = message(override)
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_without_an_experiment_the_missing_name_is_asked_for() -> None:
    with pytest.raises(UserError, match="config key 'name' has no value"):
        load_config([])


def test_several_mistakes_are_counted() -> None:
    assert message("rollout.group_size=0", "rollout.max_lag=-1").endswith("(1 more)")


def test_overrides_arrive_typed() -> None:
    config = load_config([*BASE, "rollout.max_lag=3", "train.lr=1e-3", "lora=rank16", "seed=7"])
    assert (config.rollout.max_lag, config.train.lr, config.seed) == (3, 1e-3, 7)
    assert config.train.lora is not None
    assert config.train.lora.rank == 16
    assert isinstance(config.model, TinyModelConfig)


def test_a_group_replaces_the_whole_section() -> None:
    judged = load_config([*BASE, "rewards=judged"])
    assert judged.uses_judge
    assert not load_config(list(BASE)).uses_judge


def test_a_later_config_knows_nothing_of_an_earlier_one() -> None:
    load_config([*BASE, "rollout.max_lag=3"])
    assert load_config(list(BASE)).rollout.max_lag == 1


def test_a_validated_config_is_frozen_and_says_the_same_when_read_back() -> None:
    config: Any = load_config(list(BASE))
    with pytest.raises(ValidationError, match="frozen"):
        config.rollout.max_lag = 3
    assert type(config).model_validate(config.model_dump(mode="json")) == config
