"""Models, adapters and checkpoints of strangers: data that tries to be code stays data."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from rltrain.config.algo import TrainConfig
from rltrain.errors import UserError
from rltrain.launch.export import merge
from rltrain.train.checkpoint import verify_checkpoint
from rltrain.train.model import load_policy
from tests.makers import tiny_policy


class Exploit:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_the_exploit_works_where_nothing_stops_it(tmp_path: Path) -> None:
    torch.save({"x": Exploit(tmp_path / "ran")}, tmp_path / "bad.bin")
    torch.load(tmp_path / "bad.bin", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_pickled_model_does_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_policy().save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"x": Exploit(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises((UserError, pickle.UnpicklingError)):
        load_policy(folder, TrainConfig(device="cpu"))
    assert not (tmp_path / "ran").exists()


def test_a_pickled_adapter_does_not_run(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    tiny_policy().save_pretrained(base)
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base),
        "r": 4, "target_modules": ["q_proj"],
    }))  # fmt: skip
    torch.save({"x": Exploit(tmp_path / "ran")}, adapter / "adapter_model.bin")
    with pytest.raises(Exception):  # noqa: B017 (whose error it is does not matter here)
        merge(adapter, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_code_beside_a_model_does_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()"
    (folder / "evil.py").write_text(code)
    (folder / "config.json").write_text(json.dumps({
        "model_type": "evil", "auto_map": {
            "AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model",
        },
    }))  # fmt: skip
    with pytest.raises(UserError):
        load_policy(folder, TrainConfig(device="cpu"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside"])
def test_a_checkpoint_cannot_name_files_outside_of_itself(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    folder = tmp_path / "step-00001"
    (folder / "a").mkdir(parents=True)
    sums = {name: hashlib.sha256(b"x").hexdigest()}
    (folder / "COMPLETE.json").write_text(json.dumps({"step": 1, "sha256": sums}))
    with pytest.raises(ValueError, match="outside"):
        verify_checkpoint(folder)
