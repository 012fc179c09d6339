"""Adapter pushes on a real vLLM server with LoRA enabled; one server for the file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from rltrain.config.rollout import SyncConfig
from rltrain.errors import SyncError
from rltrain.rollout.engine_client import EngineClient
from rltrain.rollout.engine_server import EngineServer
from rltrain.sync.adapter import AdapterSync
from rltrain.sync.full import FileSync
from rltrain.sync.probe import learner_logprobs, mean_abs
from rltrain.sync.worker_ext import TENSORS
from tests.sync.test_full_engine import PROBE, PROMPT, Meddler
from tests.sync.tiny_engine import client, hf_logprobs, tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]


def adapted(seed: int) -> Any:
    """The tiny model (always the same base) with an adapter that moves it by nats."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.1)
    model = get_peft_model(tiny_model(0), config)
    assert isinstance(model, PeftModel)
    change(model, seed)
    return model


def change(model: torch.nn.Module, seed: int, scale: float = 0.3) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * scale)


def test_an_adapter_is_pushed_proven_and_replaced_in_flight(
    lora_engine: EngineServer, tmp_path: Path
) -> None:
    async def tamper(policy: EngineClient, folder: str) -> Any:
        tensors = {key: value.clone() for key, value in load_file(f"{folder}/{TENSORS}").items()}
        name = next(key for key in tensors if "layers.1.self_attn.q_proj.lora_B" in key)
        tensors[name][0, 0] += 1e-3
        save_file(tensors, f"{folder}/{TENSORS}")
        return await policy.call("rltrain_stage", folder=folder)

    async def skip(policy: EngineClient) -> Any:
        await policy.call("rltrain_drop")
        return [[{"missing": []}]]

    async def run() -> None:
        policy = client(lora_engine, model="learner")
        base = policy.variant(model="policy")
        pusher = AdapterSync(
            policy,
            SyncConfig(),
            dtype=torch.float32,
            probe_ids=PROBE,
            run_dir=tmp_path,
            name="learner",
        )
        model = adapted(1)
        for version in (1, 2, 3):
            change(model, version)
            timing = await pusher.push(model, version)
            print({key: round(value, 5) for key, value in timing.items()})
            turns = await policy.generate(PROMPT, n=2, seed=3, max_tokens=16)
            for turn in turns:
                want = hf_logprobs(model.eval(), turn.prompt_ids, turn.completion_ids, 1.0)
                assert torch.allclose(torch.tensor(turn.logprobs), want, atol=1e-5)
                assert turn.version == version
        assert mean_abs(await base.score(PROBE), learner_logprobs(tiny_model(0), PROBE)) < 1e-5

        flying = asyncio.create_task(policy.generate(PROMPT, n=8, seed=4, max_tokens=300))
        await asyncio.sleep(0.2)
        change(model, 4)
        await pusher.push(model, 4)
        assert {turn.version for turn in await flying} == {3}

        pusher.engines = Meddler(policy, "rltrain_stage", tamper)
        with pytest.raises(SyncError, match=r"layers\.1\.self_attn\.q_proj\.lora_B.*altered"):
            await pusher.push(model, 5)
        pusher.engines = Meddler(policy, "rltrain_commit", skip)
        change(model, 6)
        with pytest.raises(SyncError, match="does not serve version 6"):
            await pusher.push(model, 6)

        # Base weights can be replaced under an engine with adapters, too.
        full = FileSync(base, SyncConfig(), dtype=torch.float32, probe_ids=PROBE, run_dir=tmp_path)
        assert (await full.push(tiny_model(9), 7))["probe_mean_abs"] < 1e-5
        await policy.aclose()

    asyncio.run(run())
