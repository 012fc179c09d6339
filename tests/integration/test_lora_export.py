"""A LoRA run: only the adapter travels, and what is exported is what was trained."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import SMALL, Run

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("models")]

TEXT = "<|user|>customers from Italy<|end|><|assistant|>customer_countries CONTAINS 'IT'<|end|>"


@pytest.fixture(scope="module")
def run_dir(rltrain: Run, workplace: Path) -> Path:
    args = ("name=lora", "lora=rank16", "train.lr=1e-2", "rewards=executed")
    done = rltrain("train", *SMALL, *args)
    assert done.returncode == 0, done.stderr[-3000:]
    done = rltrain("export", str(workplace / "runs" / "lora"), "--merged")
    assert done.returncode == 0, done.stderr[-3000:]
    return workplace / "runs" / "lora"


def logprobs(model: object, ids: list[int]) -> list[float]:
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].float()  # type: ignore[operator]
    picked = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])
    return [float(v) for v in picked[:, 0]]


def test_peft_and_a_fresh_vllm_give_the_trained_log_probabilities(run_dir: Path) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rltrain.config.rollout import EngineConfig
    from rltrain.rollout.engine_client import ClientConfig, EngineClient
    from rltrain.rollout.engine_server import EngineServer, EngineSpec

    ids = AutoTokenizer.from_pretrained(run_dir / "adapter").encode(TEXT, add_special_tokens=False)
    adapted = AutoPeftModelForCausalLM.from_pretrained(run_dir / "adapter", dtype=torch.float32)
    trained = logprobs(adapted, ids)
    with adapted.disable_adapter():
        base = logprobs(adapted, ids)
    merged = AutoModelForCausalLM.from_pretrained(run_dir / "model", dtype=torch.float32)
    assert max(abs(a - b) for a, b in zip(trained, base, strict=True)) > 1e-3, "it learned nothing"
    assert trained == pytest.approx(logprobs(merged, ids), abs=1e-4)

    spec = EngineSpec(model=run_dir / "model", dtype="float32", max_model_len=256)
    with EngineServer(EngineConfig(), spec, run_dir / "logs" / "export.log") as server:
        server.wait_ready()

        async def score() -> list[float]:
            config = ClientConfig(urls=(server.url,), api_key=server.api_key)
            client = EngineClient(config, lambda ids: "")
            try:
                return await client.score(ids)
            finally:
                await client.aclose()

        served = asyncio.run(score())
    assert served == pytest.approx(trained, abs=1e-4)


def test_an_adapter_run_keeps_the_base_out_of_its_checkpoint(run_dir: Path) -> None:
    policy = run_dir / "checkpoints" / "step-00003" / "policy"
    assert (policy / "adapter_model.safetensors").is_file()
    assert not (policy / "model.safetensors").exists()


def test_a_stock_openai_client_is_answered_by_the_served_adapter(
    run_dir: Path, command: list[str], workplace: Path
) -> None:
    import openai

    with subprocess.Popen(
        [*command, "serve", str(run_dir), "--name", "segments"], cwd=workplace, text=True,
        stdout=subprocess.PIPE, env={**os.environ, "RLTRAIN_SERVE_API_KEY": "sk-test"},
    ) as server:  # fmt: skip
        assert server.stdout is not None
        said = [server.stdout.readline() for _ in range(2)]
        assert "answers as model 'segments'" in said[0], said
        url = said[1].strip().removeprefix("export OPENAI_BASE_URL=")
        ask = {"messages": [{"role": "user", "content": "customers from Italy"}],
               "temperature": 0, "max_tokens": 24}  # fmt: skip
        client = openai.OpenAI(base_url=url, api_key="sk-test")
        answers = {
            name: client.chat.completions.create(model=name, **ask, logprobs=True).choices[0]
            for name in ("segments", "base")
        }
        assert answers["segments"].message.content
        first = [answer.logprobs.content[0].logprob for answer in answers.values()]
        assert abs(first[0] - first[1]) > 1e-5, "the adapter is served, not its base"
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url, api_key="wrong").models.list()
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 130
