"""The engine's life: it starts or says why not, and never outlives whoever started it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sync"))

from rltrain.errors import ChildDied, EngineFault, UserError
from rltrain.rollout.engine_server import EngineServer, EngineSpec, last_error
from tests.sync.tiny_engine import CONFIG, client, save_tiny, serving

PARENT = """
import time
from pathlib import Path
from rltrain.config.rollout import EngineConfig
from rltrain.rollout.engine_server import EngineServer, EngineSpec
server = EngineServer(
    EngineConfig(kv_cache_mb=64), EngineSpec(model=Path({model!r}), dev=False), Path({log!r})
)
server.start()
server.wait_ready()
print(server.process.pid, server.url, server.api_key, flush=True)
time.sleep(600)
"""


def group_members(group: int) -> list[int]:
    """Living processes of a process group."""
    out = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] not in "ZX":
                out.append(int(entry.name))
    return out


def gone_within(group: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not group_members(group)


def test_the_last_meaningful_line_of_a_log_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "(EngineCore pid=7) ERROR 11-22 14:42:42 [core.py:15] ValueError: head_dim=16 unsupported\n"
        "(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above.\n"
        "some noise\n"
    )
    assert last_error(log) == "ValueError: head_dim=16 unsupported"
    assert last_error(tmp_path / "none") == "no log was written"


def test_a_missing_model_folder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    server = EngineServer(CONFIG, EngineSpec(model=tmp_path / "nowhere"), tmp_path / "log")
    with pytest.raises(UserError, match=r"no model at .*nowhere: config\.json is missing"):
        server.start()


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        spec = EngineSpec(model=save_tiny(tmp_path / "model"))
        server = EngineServer(CONFIG.model_copy(update={"port": port}), spec, tmp_path / "log")
        with pytest.raises(UserError, match=rf"port {port} .*set engine\.port=0"):
            server.start()
        assert server.process is None


@pytest.mark.engine
@pytest.mark.timeout(120)
def test_a_corrupt_model_is_one_sentence_with_the_cause_and_the_log(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    server = EngineServer(CONFIG, EngineSpec(model=model), tmp_path / "engine.log")
    server.start()
    assert server.process is not None
    with pytest.raises(ChildDied, match=r"while starting: .*(Error|invalid).*engine\.log") as info:
        server.wait_ready()
    assert "\n" not in str(info.value)
    assert gone_within(server.process.pid, 2)


@pytest.mark.engine
@pytest.mark.timeout(120)
def test_an_engine_that_is_too_slow_is_stopped(tmp_path: Path) -> None:
    server = EngineServer(CONFIG, EngineSpec(model=save_tiny(tmp_path / "m")), tmp_path / "log")
    server.start()
    assert server.process is not None
    with pytest.raises(EngineFault, match=r"not ready after 0\.5 s; raise engine\.start_timeout_s"):
        server.wait_ready(0.5)
    assert gone_within(server.process.pid, 2)


@pytest.mark.engine
@pytest.mark.timeout(120)
def test_an_engine_killed_while_it_samples_is_a_fault_after_retries(tmp_path: Path) -> None:
    async def run(server: EngineServer) -> None:
        policy = client(server, retries=2, stop_ids=())
        assert await policy.is_healthy()
        request = asyncio.create_task(policy.generate((1, 2, 3), n=32, seed=1, max_tokens=400))
        await asyncio.sleep(0.3)
        assert not request.done()
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGKILL)
        with pytest.raises(EngineFault, match="no engine answered after 3 tries"):
            await request
        assert not await policy.is_healthy()
        await policy.aclose()

    with serving(tmp_path) as server:
        asyncio.run(run(server))
        assert server.poll() == -signal.SIGKILL
        # EngineCore is a child of the process that was killed; nobody told it but the kernel.
        assert server.process is not None
        assert gone_within(server.process.pid, 3)


@pytest.mark.engine
@pytest.mark.timeout(120)
def test_nothing_remains_when_the_parent_is_killed(tmp_path: Path) -> None:
    """The same server, a plain one without dev endpoints, first answers a chat as a judge would."""
    model = save_tiny(tmp_path / "model")
    code = PARENT.format(model=str(model), log=str(tmp_path / "engine.log"))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            assert parent.stdout is not None
            pid, url, key = parent.stdout.readline().split()
            headers = {"Authorization": f"Bearer {key}"}
            chat = {"model": "policy", "messages": [{"role": "user", "content": "hi"}]}
            reply = httpx.post(
                f"{url}/v1/chat/completions", json=chat | {"max_tokens": 4}, headers=headers
            )
            assert reply.status_code == 200
            assert httpx.post(f"{url}/collective_rpc", json={}, headers=headers).status_code == 404
            assert len(group_members(int(pid))) >= 2
        finally:
            parent.kill()
    assert gone_within(int(pid), 3)
