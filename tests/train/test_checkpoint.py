"""Checkpoints on a real disk: whole, or refused by the name of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rltrain.config.algo import AlgoConfig, LoraConfig, TrainConfig
from rltrain.train import checkpoint
from rltrain.train.checkpoint import MARKER, latest_checkpoint, save_checkpoint, verify_checkpoint
from rltrain.train.learner import PolicyLearner
from rltrain.train.model import add_lora
from rltrain.train.objective import Objective
from rltrain.warmup.tokenizer import train_tokenizer
from tests.makers import tiny_policy

RENDERER = SimpleNamespace(tokenizer=train_tokenizer(["tag = 'vip'"], 300, 64))


def learner_of(lora: bool = False) -> PolicyLearner:
    model = tiny_policy()
    wrapped = add_lora(model, LoraConfig(rank=2)) if lora else model
    return PolicyLearner(wrapped, Objective.from_config(AlgoConfig(), 1.0), TrainConfig(), 1)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "step-00003", learner_of(), RENDERER, 3)


def test_what_was_saved_loads_again(saved: Path) -> None:
    assert verify_checkpoint(saved) == 3
    model = AutoModelForCausalLM.from_pretrained(saved / "policy")
    state = tiny_policy().state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(saved / "policy")
    assert tokenizer.decode(tokenizer.encode("tag = 'vip'")) == "tag = 'vip'"


def test_a_lora_checkpoint_holds_the_adapter_only(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "step-00001", learner_of(lora=True), RENDERER, 1)
    names = {p.name for p in (folder / "policy").iterdir()}
    assert "adapter_model.safetensors" in names
    assert "model.safetensors" not in names
    assert verify_checkpoint(folder) == 1


def test_every_file_but_the_marker_is_under_a_checksum(saved: Path) -> None:
    sums = json.loads((saved / MARKER).read_text())["sha256"]
    files = {p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()}
    assert set(sums) == files - {MARKER}
    assert "policy/model.safetensors" in sums
    assert "state.pt" in sums


def test_a_truncated_file_is_named(saved: Path) -> None:
    weights = saved / "policy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"policy/model\.safetensors is damaged"):
        verify_checkpoint(saved)


def test_a_single_flipped_bit_is_named(saved: Path) -> None:
    state = bytearray((saved / "state.pt").read_bytes())
    state[len(state) // 2] ^= 1
    (saved / "state.pt").write_bytes(state)
    with pytest.raises(ValueError, match=r"state\.pt is damaged"):
        verify_checkpoint(saved)


def test_a_missing_file_is_named(saved: Path) -> None:
    (saved / "policy" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"lacks policy/config\.json"):
        verify_checkpoint(saved)


@pytest.mark.parametrize("text", ["", '{"step": 3', "[]", '{"step": 3}'])
def test_a_damaged_marker_is_named(saved: Path, text: str) -> None:
    (saved / MARKER).write_text(text)
    with pytest.raises(ValueError, match=r"COMPLETE\.json is damaged"):
        verify_checkpoint(saved)


def test_a_save_that_was_killed_leaves_nothing_that_is_taken_for_a_checkpoint(
    tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint.torch, "save", killed)
        save_checkpoint(tmp_path / "step-00004", learner_of(), RENDERER, 4)
    assert (tmp_path / ".step-00004.tmp" / "policy" / "model.safetensors").is_file()
    assert not (tmp_path / "step-00004").exists()
    assert latest_checkpoint(tmp_path) == saved
    with pytest.raises(ValueError, match=r"COMPLETE\.json is missing"):
        verify_checkpoint(tmp_path / ".step-00004.tmp")
    # The leavings do not stand in the way of the next try.
    again = save_checkpoint(tmp_path / "step-00004", learner_of(), RENDERER, 4)
    assert latest_checkpoint(tmp_path) == again
    assert verify_checkpoint(again) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00003", "step-00004"]


def test_step_100000_comes_after_step_99999(tmp_path: Path) -> None:
    for step in (100_000, 99_999):
        (tmp_path / f"step-{step:05d}").mkdir()
        (tmp_path / f"step-{step:05d}" / MARKER).write_text("{}")
    assert latest_checkpoint(tmp_path) == tmp_path / "step-100000"


def test_a_folder_without_checkpoints_has_no_latest_one(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
