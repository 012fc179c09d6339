"""The critic in a checkpoint: whole, refused if it is another's, and never in an export."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest

from rltrain.config.algo import AlgoConfig, LoraConfig
from rltrain.launch.export import export_run
from rltrain.rundir import RunDir
from rltrain.train.checkpoint import save_checkpoint, verify_checkpoint
from rltrain.train.learner import PolicyLearner
from rltrain.train.model import add_lora
from rltrain.train.objective import Objective
from rltrain.train.restore import restore_critic
from rltrain.warmup.tokenizer import train_tokenizer
from tests.makers import random_families, tiny_policy
from tests.train.test_critic import PLAIN, TRAIN, batch_of, learner_of, same, state_of

RENDERER = SimpleNamespace(tokenizer=train_tokenizer(["tag = 'vip'"], 300, 64))


def test_a_checkpoint_brings_the_critic_back_with_its_optimizer(tmp_path: Path) -> None:
    config = PLAIN.model_copy(update={"warmup_steps": 4})
    learner = learner_of(config)
    for _ in range(3):
        learner.step(batch_of(random_families()))
    folder = save_checkpoint(tmp_path / "step-00003", learner, RENDERER, 3)
    assert verify_checkpoint(folder) == 3
    again = learner_of(config)
    restore_critic(folder, again.critic)
    assert again.critic.steps == 3
    assert same(state_of(again.critic.model), state_of(learner.critic.model))
    for one in (learner, again):  # the same next step: momenta came back too
        one.step(batch_of(random_families()))
    assert same(state_of(again.critic.model), state_of(learner.critic.model))


def test_a_policy_without_critic_has_none_in_its_checkpoint(tmp_path: Path) -> None:
    learner = PolicyLearner(tiny_policy(), Objective.from_config(AlgoConfig(), 1.0), TRAIN, 1)
    folder = save_checkpoint(tmp_path / "step-00001", learner, RENDERER, 1)
    assert not (folder / "critic.pt").exists()
    with pytest.raises(ValueError, match=r"step-00001 lacks critic\.pt"):
        restore_critic(folder, learner_of().critic)


def test_a_critic_of_another_architecture_is_refused() -> None:
    full = learner_of().critic.state_dict()
    lora = learner_of(model=add_lora(tiny_policy(), LoraConfig(rank=2))).critic
    with pytest.raises(ValueError, match="other weights"):
        lora.load_state_dict(copy.deepcopy(full))


def test_an_export_takes_the_policy_only(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    save_checkpoint(run.checkpoints / "step-00001", learner_of(), RENDERER, 1)
    assert (run.checkpoints / "step-00001" / "critic.pt").is_file()
    folder = export_run(run, tmp_path / "out")
    assert (folder / "model.safetensors").is_file()
    assert list((tmp_path / "out").rglob("critic*")) == []
