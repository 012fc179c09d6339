"""Whatever listens does so on this machine alone, and wants a token or the right user."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rltrain.rollout.engine_server import EngineServer, EngineSpec
from tests.rollout.fake_worker import running
from tests.sync.tiny_engine import CONFIG, save_tiny

CONNECT = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""
PATHS = (
    ("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"),
    ("GET", "/metrics"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/version"),
    ("POST", "/tokenize"), ("POST", "/collective_rpc"), ("POST", "/pause"), ("GET", "/ping"),
    ("POST", "/invocations"), ("GET", "/health/../v1/models"), ("GET", "//health"),
    ("GET", "/health/"), ("GET", "/v1/models?x=/health"), ("GET", "/HEALTH"),
    ("POST", "/v1/load_lora_adapter"),
)  # fmt: skip


def test_only_the_users_own_processes_reach_the_queue() -> None:
    old = os.umask(0)  # whatever the user's umask is
    try:
        with running() as (dispatcher, _):
            path = Path(dispatcher.ledger.path).with_name("queue")
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            if os.geteuid() == 0:
                command = [sys.executable, "-S", "-c", CONNECT, str(path)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=60)
                assert done.stdout.strip() == "PermissionError", done
    finally:
        os.umask(old)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_socket_in_an_open_folder_is_still_its_owners() -> None:
    with running() as (dispatcher, _):
        path = Path(dispatcher.ledger.path).with_name("queue")
        path.parent.chmod(0o755)
        command = [sys.executable, "-S", "-c", CONNECT, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "PermissionError", done


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """A server as the embedded judge has it."""
    folder = tmp_path_factory.mktemp("judge")
    spec = EngineSpec(model=save_tiny(folder / "model"), name="judge", dtype="float32", dev=False)
    with EngineServer(CONFIG, spec, folder / "judge.log") as server:
        server.wait_ready()
        yield server


def listening(group: int) -> set[str]:
    """Addresses, as the kernel writes them, on which processes of a group accept connections."""
    sockets = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(entry)) == group:
                for link in Path(f"/proc/{entry}/fd").iterdir():
                    sockets.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1].split(":")[0])
    return found


@pytest.mark.engine
@pytest.mark.timeout(120)
def test_the_judge_listens_on_loopback_alone(judge: EngineServer) -> None:
    assert judge.process is not None
    assert listening(os.getpgid(judge.process.pid)) == {"0100007F"}


@pytest.mark.engine
@pytest.mark.parametrize(("method", "path"), PATHS)
def test_the_judge_answers_nobody_without_the_token(
    judge: EngineServer, method: str, path: str
) -> None:
    host = judge.url.removeprefix("http://")
    tokens = ("", "Bearer", "Bearer nonsense", f"Basic {judge.api_key}", f"bearer {judge.api_key}x")
    with httpx.Client() as http:
        for token in tokens:
            headers = {"Authorization": token} if token else {}
            # The raw target: a client would tidy up `..` before it is sent.
            url = httpx.URL(f"http://{host}").copy_with(raw_path=path.encode())
            body = {} if method == "POST" else None
            reply = http.request(method, url, headers=headers, json=body)
            assert reply.status_code == 401, (path, token, reply.text[:200])
        assert http.get(f"{judge.url}/health").status_code == 200


@pytest.mark.engine
def test_the_token_is_on_no_command_line_and_in_no_log(judge: EngineServer) -> None:
    assert judge.api_key not in judge.log.read_text()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            assert judge.api_key.encode() not in Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
