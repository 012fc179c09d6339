"""One vLLM server as a child process: started fast, watched while it starts, never orphaned.

    start() -> wait_ready() -> ... poll(), alive() ... -> restart() ... -> stop()

`engine_args` says with which settings. The server binds the loopback interface; every path but
/health wants a token that is made per server. A restarted server keeps port and token, so that
nobody has to be told.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from rltrain.config.rollout import EngineConfig
from rltrain.errors import ChildDied, EngineFault, UserError
from rltrain.rollout import engine_boot
from rltrain.rollout.engine_args import EngineSpec, on_cpu, server_args, server_env

__all__ = ["EngineServer", "EngineSpec", "check_port", "free_port", "last_error"]

_POLL_S = 0.1
_PORT_S = 5.0
"""What the rest of a killed server gets to let go of its port."""
_LOWEST_PORT = 10_000
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ERROR_LINE = re.compile(r"(?:^|\s)((?:[\w.]*(?:Error|Exception|Interrupt)|error): .+)$")
_ECHOES = ("Engine core initialization failed", "EngineDeadError", "See stack trace", "See root")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on at this moment, below those that the system hands out.

    While a server is down between two starts, its port could else be given to somebody's outgoing
    connection, even to a client's own that knocks on it."""
    try:
        below = int(_PORT_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        below = 0
    ports = range(_LOWEST_PORT, below)
    for port in [*random.sample(ports, min(20, len(ports))), 0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    raise UserError(f"no port is free on {host}; stop processes that hold one")


def check_port(host: str, port: int) -> None:
    """Raise `UserError` if the port cannot be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} on {host} cannot be used ({error.strerror}); set engine.port=0 to "
                "let the system choose a free one, or stop the process that holds it"
            ) from error


def last_error(log: Path, start: int = 0) -> str:
    """The last line of a server's log, from byte `start` on, that names a cause, without logger
    prefixes."""
    try:
        lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    except OSError:
        return "no log was written"
    for line in reversed(lines):
        found = _ERROR_LINE.search(line)
        if found and not any(echo in line for echo in _ECHOES):
            return found.group(1).strip()
    return next((line.strip() for line in reversed(lines) if line.strip()), "the log is empty")


def _any_stopped(group: int) -> bool:
    """Whether a process of the group was stopped (SIGSTOP, a debugger); False without /proc."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, owner, *_ = stat.read_text().rpartition(")")[2].split()
            if int(owner) == group and state in "Tt":
                return True
    return False


class EngineServer:
    """A vLLM server that lives at most as long as the process that started it.

    `url` and `api_key` are what a client needs; engines behind one client share a key, so give the
    first one's to the others. Usable as a context manager: leaving it stops the
    server, also when the body raised."""

    def __init__(
        self, config: EngineConfig, spec: EngineSpec, log: Path, *, api_key: str | None = None
    ) -> None:
        self.config = config
        self.spec = spec
        self.log = log
        self.api_key = api_key or secrets.token_urlsafe(32)
        self.port = config.port
        self.process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._log_start = 0

    @property
    def url(self) -> str:
        return f"http://{self.config.host}:{self.port}"

    def start(self) -> None:
        """Start the process and return at once. Raises `UserError` for a port or model folder
        that cannot work."""
        if self.process is not None:
            raise UserError("this engine was started already; make a new EngineServer")
        if not (self.spec.model / "config.json").is_file():
            raise UserError(
                f"no model at {self.spec.model}: config.json is missing; "
                "give a folder written by save_pretrained"
            )
        if self.config.port:
            check_port(self.config.host, self.config.port)
        else:
            self.port = free_port(self.config.host)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        self._launch(parent_lasts=threading.current_thread() is threading.main_thread())

    def restart(self) -> None:
        """Start anew on the same port with the same token, and return at once; what is left of the
        old process is killed. Raises `UserError` if the port was taken meanwhile.

        The calling thread must live as long as the server: the kernel ends both together."""
        self.kill()
        self._wait_port()
        self._launch(parent_lasts=True)

    def _wait_port(self) -> None:
        # EngineCore was forked with the socket open, and nobody can be told when it is gone.
        deadline = time.monotonic() + _PORT_S
        while True:
            try:
                return check_port(self.config.host, self.port)
            except UserError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)

    def _launch(self, *, parent_lasts: bool) -> None:
        cpu = on_cpu()
        args = server_args(self.config, self.spec, self.port, cpu=cpu)
        env = server_env(self.config, self.spec, self.api_key, cpu=cpu, parent_lasts=parent_lasts)
        self._started = time.monotonic()
        self._log_start = self.log.stat().st_size
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", engine_boot.__name__, *args],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float | None = None) -> float:
        """Wait until the model answers; returns the seconds since `start`.

        Raises `ChildDied` if the process ended, `EngineFault` if it is not ready in time (default
        `engine.start_timeout_s`). In both cases nothing is left running."""
        limit = self.config.start_timeout_s if timeout_s is None else timeout_s
        with httpx.Client(headers={"Authorization": f"Bearer {self.api_key}"}, timeout=5) as http:
            while True:
                code = self.poll()
                if code is not None:
                    self.stop()
                    raise ChildDied(
                        f"the engine for {self.spec.model} ended with code {code} while starting: "
                        f"{self.cause()} (log: {self.log})"
                    )
                if self._answers(http):
                    return time.monotonic() - self._started
                if time.monotonic() - self._started > limit:
                    self.stop()
                    raise EngineFault(
                        f"the engine for {self.spec.model} was not ready after {limit:g} s; raise "
                        f"engine.start_timeout_s or read {self.log} ({self.cause()})"
                    )
                time.sleep(_POLL_S)

    def _answers(self, http: httpx.Client) -> bool:
        # Our token and our model's name: another server on this port would not know both.
        try:
            reply = http.get(f"{self.url}/v1/models")
        except httpx.TransportError:
            return False
        return reply.status_code == 200 and f'"{self.spec.name}"' in reply.text

    def alive(self, http: httpx.Client) -> bool:
        """Whether it answers and none of its processes is stopped. A policy's server is asked for
        something that only its EngineCore knows; /health alone answers while that one hangs."""
        if self.process is None or _any_stopped(self.process.pid):
            return False
        path = "/is_paused" if self.spec.dev else "/health"
        try:
            key = {"Authorization": f"Bearer {self.api_key}"}
            return http.get(f"{self.url}{path}", headers=key).status_code == 200
        except httpx.HTTPError:
            return False

    def cause(self) -> str:
        """What its log says since the last start that an end may be due to."""
        return last_error(self.log, self._log_start)

    def poll(self) -> int | None:
        """Exit code of the server, None while it runs (or was never started)."""
        return None if self.process is None else self.process.poll()

    def stop(self, grace_s: float = 5.0) -> None:
        """Terminate, wait up to `grace_s` seconds, then kill whatever is left of the group."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=grace_s)
        self.kill()

    def kill(self) -> None:
        """End the whole group now."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=5)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
