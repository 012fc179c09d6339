"""Sampling and full-weight pushes on a real vLLM server; one server for the file."""

from __future__ import annotations

import asyncio
import math
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from rltrain.config.rollout import SyncConfig
from rltrain.errors import EngineFault, SyncError
from rltrain.rollout.engine_client import EngineClient
from rltrain.rollout.engine_server import EngineServer
from rltrain.sync.full import FileSync
from rltrain.sync.passage import PREFIX
from rltrain.sync.probe import learner_logprobs, mean_abs, probe_ids
from rltrain.sync.worker_ext import TENSORS
from tests.sync.tiny_engine import END, client, hf_logprobs, tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]
PROMPT = (258, 40, 41, 42, 259)
PROBE = probe_ids(260)


def sync(engines: Any, tmp_path: Path) -> FileSync:
    return FileSync(engines, SyncConfig(), dtype=torch.float32, probe_ids=PROBE, run_dir=tmp_path)


def test_greedy_equals_transformers_generate(engine: EngineServer, tmp_path: Path) -> None:
    async def run() -> None:
        policy = client(engine)
        model = tiny_model(1)
        await sync(policy, tmp_path).push(model, 1)
        turns = await policy.variant(temperature=0.0).generate(
            PROMPT, n=2, seed=None, max_tokens=24
        )
        want = model.generate(
            torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False, eos_token_id=END
        )[0, len(PROMPT) :]
        assert turns[0].completion_ids == tuple(want.tolist())
        assert turns[1] == turns[0]
        await policy.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_behaviour_logprobs_are_those_of_the_sampling_distribution(
    engine: EngineServer, tmp_path: Path, temperature: float
) -> None:
    async def run() -> None:
        policy = client(engine, temperature=temperature)
        model = tiny_model(2)
        await sync(policy, tmp_path).push(model, 2)
        turns = await policy.generate(PROMPT, n=4, seed=5, max_tokens=32)
        again = await policy.generate(PROMPT, n=4, seed=5, max_tokens=32)
        other = await policy.generate(PROMPT, n=4, seed=6, max_tokens=32)
        assert [t.completion_ids for t in turns] == [t.completion_ids for t in again]
        assert [t.completion_ids for t in turns] != [t.completion_ids for t in other]
        assert len({t.completion_ids for t in turns}) > 1
        for turn in turns:
            want = hf_logprobs(model, turn.prompt_ids, turn.completion_ids, temperature)
            assert torch.allclose(torch.tensor(turn.logprobs), want, atol=1e-5, rtol=0)
            assert (turn.stop_reason == "stop") == (turn.completion_ids[-1] == END)
        await policy.aclose()

    asyncio.run(run())


def test_a_push_changes_what_is_served_and_stamps_the_version(
    engine: EngineServer, tmp_path: Path
) -> None:
    """The model's head is tied: an engine that left the head stale would fail here by nats."""

    abandoned = set(Path("/dev/shm").glob(f"{PREFIX}*"))  # of processes killed elsewhere

    async def run() -> None:
        policy = client(engine)
        pusher = sync(policy, tmp_path)
        for version, seed in ((3, 3), (4, 4)):
            model = tiny_model(seed)
            timing = await pusher.push(model, version)
            assert timing["probe_mean_abs"] < 1e-5
            assert mean_abs(await policy.score(PROBE), learner_logprobs(model, PROBE)) < 1e-5
            turns = await policy.generate(PROMPT, n=2, seed=0, max_tokens=8)
            assert {turn.version for turn in turns} == {version}
            print({key: round(value, 4) for key, value in timing.items()})
        assert await policy.versions() == ["4"]
        left = set(Path("/dev/shm").glob(f"{PREFIX}*")) - abandoned
        assert not left, "a pushed file was left behind"
        await policy.aclose()

    asyncio.run(run())


def test_requests_in_flight_survive_a_push_and_bear_their_oldest_version(
    engine: EngineServer, tmp_path: Path
) -> None:
    async def run() -> None:
        policy = client(engine)
        pusher = sync(policy, tmp_path)
        await pusher.push(tiny_model(5), 5)
        # Token 256 ends a turn: without it all 16 are certainly still running.
        requests = [
            asyncio.create_task(policy.generate((*PROMPT, i), n=1, seed=i, max_tokens=300))
            for i in range(16)
        ]
        await asyncio.sleep(0.3)
        pending = sum(not task.done() for task in requests)
        new = tiny_model(6)
        await pusher.push(new, 6)
        turns = [turn for group in await asyncio.gather(*requests) for turn in group]
        late = await policy.generate(PROMPT, n=1, seed=1, max_tokens=4)
        assert pending > 0
        assert len(turns) == 16
        assert {turn.version for turn in turns} == {5}
        assert late[0].version == 6
        # The end of a long turn was sampled under the new weights, with everything recomputed.
        long = max(turns, key=lambda turn: len(turn.completion_ids))
        want = hf_logprobs(new, long.prompt_ids, long.completion_ids, 1.0)
        assert torch.allclose(torch.tensor(long.logprobs[-8:]), want[-8:], atol=1e-4)
        assert await policy.paused() == [False]
        await policy.aclose()

    asyncio.run(run())


class Meddler:
    """Passes everything to the real engine, except for one call that goes wrong."""

    def __init__(self, policy: EngineClient, method: str, action: Any) -> None:
        self.policy, self.method, self.action = policy, method, action

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    async def call(self, method: str, **kwargs: Any) -> Sequence[Sequence[Any]]:
        if method == self.method:
            return await self.action(self.policy, **kwargs)  # type: ignore[no-any-return]
        return await self.policy.call(method, **kwargs)


def test_a_tensor_altered_on_the_way_is_named_and_nothing_is_loaded(
    engine: EngineServer, tmp_path: Path
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"

    async def tamper(policy: EngineClient, folder: str) -> Any:
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        tensors = {key: value.clone() for key, value in load_file(f"{folder}/{TENSORS}").items()}
        tensors[name][3, 3] += 1e-6
        save_file(tensors, f"{folder}/{TENSORS}")
        return await policy.call("rltrain_stage", folder=folder)

    async def run() -> None:
        policy = client(engine)
        old = tiny_model(7)
        await sync(policy, tmp_path).push(old, 7)
        with pytest.raises(SyncError, match=f"{name} arrived altered"):
            await sync(Meddler(policy, "rltrain_stage", tamper), tmp_path).push(tiny_model(8), 8)
        assert mean_abs(await policy.score(PROBE), learner_logprobs(old, PROBE)) < 1e-5
        assert await policy.versions() == ["7"]
        assert await policy.paused() == [False]
        await policy.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("step", [1.0, 1e-5])
def test_a_load_that_is_skipped_is_caught_by_the_probe_however_small_the_step(
    engine: EngineServer, tmp_path: Path, step: float
) -> None:
    async def skip(policy: EngineClient) -> Any:
        await policy.call("rltrain_drop")
        return [[{"missing": []}]]

    async def run() -> None:
        policy = client(engine)
        pusher = sync(policy, tmp_path)
        model = tiny_model(9)
        await pusher.push(model, 9)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=step * 0.1)
        pusher.engines = Meddler(policy, "rltrain_commit", skip)
        with pytest.raises(SyncError, match="does not serve version 10"):
            await pusher.push(model, 10)
        pusher.engines = policy
        assert (await pusher.push(model, 11))["probe_mean_abs"] < 1e-5
        await policy.aclose()

    asyncio.run(run())


def test_a_load_that_fails_midway_leaves_the_engine_running_but_its_tokens_refused(
    engine: EngineServer, tmp_path: Path
) -> None:
    async def run() -> None:
        policy = client(engine)
        pusher = sync(policy, tmp_path)
        smaller = tiny_model(10)
        del smaller.model.layers[1]
        with pytest.raises(SyncError, match=r"did not send: model\.layers\.1"):
            await pusher.push(smaller, 12)
        assert await policy.paused() == [False]
        with pytest.raises(EngineFault, match="unproven weights"):
            await policy.generate(PROMPT, n=1, seed=0, max_tokens=4)
        await pusher.push(tiny_model(10), 13)
        turns = await policy.generate(PROMPT, n=1, seed=0, max_tokens=4)
        assert turns[0].version == 13
        await policy.aclose()

    asyncio.run(run())


def test_weights_that_are_not_finite_stop_the_push_and_arrive_as_nan(
    engine: EngineServer, tmp_path: Path
) -> None:
    async def run() -> None:
        policy = client(engine)
        pusher = sync(policy, tmp_path)
        broken = tiny_model(11)
        with torch.no_grad():
            broken.model.norm.weight.fill_(math.nan)
        with pytest.raises(SyncError, match=r"not finite|failed"):
            await pusher.push(broken, 14)
        turns = await policy.generate(PROMPT, n=1, seed=0, max_tokens=4)
        assert all(math.isnan(value) for value in turns[0].logprobs)
        await pusher.push(tiny_model(11), 15)
        await policy.aclose()

    asyncio.run(run())


def test_every_path_but_health_wants_the_token(engine: EngineServer) -> None:
    bare = httpx.Client(base_url=engine.url, timeout=5)
    assert bare.get("/health").status_code == 200
    for path in ("/collective_rpc", "/pause", "/inference/v1/generate", "/v1/load_lora_adapter"):
        assert bare.post(path, json={}).status_code == 401
    wrong = {"Authorization": "Bearer nonsense"}
    assert bare.get("/weight_info", headers=wrong).status_code == 401
    command = Path(f"/proc/{engine.process.pid}/cmdline").read_text()  # type: ignore[union-attr]
    assert engine.api_key not in command


def test_a_bad_request_is_not_retried(engine: EngineServer) -> None:
    async def run() -> None:
        policy = client(engine, model="nobody")
        start = time.monotonic()
        with pytest.raises(EngineFault, match="404"):
            await policy.generate(PROMPT, n=1, seed=0, max_tokens=4)
        assert time.monotonic() - start < 0.5
        await policy.aclose()

    asyncio.run(run())


def test_throughput_is_reported(engine: EngineServer, tmp_path: Path) -> None:
    async def run() -> None:
        policy = client(engine, stop_ids=())
        pusher = sync(policy, tmp_path)
        await pusher.push(tiny_model(12), 16)
        for _ in range(3):
            start = time.perf_counter()
            groups = await asyncio.gather(
                *(policy.generate((*PROMPT, i), n=8, seed=i, max_tokens=40) for i in range(16))
            )
            seconds = time.perf_counter() - start
            tokens = sum(len(turn.completion_ids) for group in groups for turn in group)
            print(f"{tokens} tokens in {seconds:.2f} s: {tokens / seconds:.0f} tok/s")
        for version in range(17, 21):
            timing = await pusher.push(tiny_model(version), version)
            print({key: round(value, 5) for key, value in timing.items()})
        assert tokens > 0
        await policy.aclose()

    asyncio.run(run())
