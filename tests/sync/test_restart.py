"""An engine that is killed and started anew: refused until the learner's weights are back in it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import httpx
import pytest
import torch

from rltrain.config.rollout import SyncConfig
from rltrain.errors import EngineFault
from rltrain.rollout.engine_server import EngineServer
from rltrain.sync.full import FileSync
from rltrain.sync.guard import guarded
from rltrain.sync.probe import learner_logprobs, mean_abs, probe_ids
from tests.sync.tiny_engine import client, serving, tiny_model

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(200)]
PROMPT = (258, 40, 41, 42, 259)
PROBE = probe_ids(260)


def test_a_killed_engine_comes_back_on_its_port_and_gets_the_weights_again(tmp_path: Path) -> None:
    events: list[tuple[str, str]] = []

    async def run(server: EngineServer) -> None:
        policy = client(server, initial=False, patience_s=120, timeout_s=60)
        policy._outages._report = lambda kind, text: events.append((kind, text))
        model = tiny_model(5)
        pusher = FileSync(
            policy, SyncConfig(), dtype=torch.float32, probe_ids=PROBE, run_dir=tmp_path
        )
        await pusher.push(model, 7)
        before = await policy.generate(PROMPT, n=4, seed=1, max_tokens=60)

        with httpx.Client(timeout=5) as http:
            assert server.alive(http)
            os.kill(core_of(server), signal.SIGSTOP)  # its API server would answer /health
            assert not server.alive(http)
            flying = asyncio.create_task(policy.generate(PROMPT, n=4, seed=1, max_tokens=60))
            await asyncio.sleep(0.2)
            url, died = server.url, server.process
            server.restart()
            assert died is not None and died.poll() == -signal.SIGKILL
            assert server.url == url
            with pytest.raises(EngineFault):
                await policy.versions()
            pushing = asyncio.create_task(pusher.push(model, 7))  # meets a dead engine, and waits
            await asyncio.to_thread(server.wait_ready)
        timing = await pushing
        assert timing["probe_mean_abs"] < 1e-5
        after = await flying
        assert [t.completion_ids for t in after] == [t.completion_ids for t in before]
        assert {turn.version for turn in after} == {7}
        assert [kind for kind, _ in events] == ["outage", "outage_over"]

        await policy.set_version("default")  # as if it had been started anew
        back = threading.Event()
        waiting = asyncio.create_task(guarded(lambda: back.wait(60), pusher, model, 7))
        again = await policy.generate(PROMPT, n=1, seed=1, max_tokens=4)
        assert again[0].version == 7
        back.set()
        assert await waiting
        assert mean_abs(await policy.score(PROBE), learner_logprobs(model, PROBE)) < 1e-5
        await policy.aclose()

    with serving(tmp_path) as server:
        asyncio.run(run(server))


def core_of(server: EngineServer) -> int:
    """The process that computes: a child of the server's first."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return int(children.split()[0])
