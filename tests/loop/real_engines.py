"""The training loop over a real engine: `learning` as `rltrain train` composes it, a real worker
(in a thread), and a policy of 10,000 parameters."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rltrain import build
from rltrain.config import RunConfig
from rltrain.config.rollout import EngineConfig
from rltrain.launch.servers import engine_dtype
from rltrain.rollout.engine_client import EngineClient
from rltrain.rollout.engine_server import EngineServer, EngineSpec
from rltrain.rundir import RunDir, create_run
from tests.loop.harness import BASE, small_policy
from tests.loop.token_env import tokenizer

CONFIG = EngineConfig(kv_cache_mb=64, start_timeout_s=300)


def save_policy(folder: Path) -> Path:
    text = tokenizer()
    small_policy(len(text), head_dim=32).save_pretrained(folder)  # less, vLLM's CPU kernel lacks
    text.save_pretrained(folder)
    return folder


@contextmanager
def engines(folder: Path, dtypes: Sequence[str]) -> Iterator[dict[str, EngineServer]]:
    """One engine for each dtype, started side by side, serving the same policy."""
    model = save_policy(folder / "model")
    servers: dict[str, EngineServer] = {}
    with ExitStack() as stack:  # each is stopped, even if stopping another fails
        for dtype in dtypes:
            spec = EngineSpec(model=model, dtype=dtype, max_model_len=64)
            server = EngineServer(CONFIG, spec, folder / f"{dtype}.log")
            servers[dtype] = stack.enter_context(server)
        for server in servers.values():
            server.wait_ready()
        yield servers


def config(folder: Path, compute: str, **changes: Any) -> RunConfig:
    """A run of three steps, of four groups of four, on fresh weights."""
    sections: dict[str, Any] = {
        "runs_dir": str(folder),
        "precision": {"compute": compute},
        "rollout": {"groups_per_step": 4, "max_lag": 0},
        "train": {"checkpoint_every": 1},
        "track": {"wandb": "disabled"},
    }
    tree: dict[str, Any] = dict(BASE)
    for section, values in (sections | changes).items():
        merged = isinstance(values, dict)
        tree[section] = {**tree.get(section, {}), **values} if merged else values
    return RunConfig.model_validate(tree)


def client(server: EngineServer, run: RunConfig, place: build.Place) -> EngineClient:
    from rltrain.rollout.render import Renderer

    os.environ[build.TOKEN_ENV] = server.api_key
    return build.client(run, place, Renderer.load(place.model)).variant(initial=True)


def place_of(server: EngineServer, run: RunConfig, queue: str = "", path: str = "") -> build.Place:
    return build.Place(
        model=str(server.spec.model), engines=(server.url,), judge=None, queue=queue,
        dtype=engine_dtype(run), run=path or None, process="learner",
    )  # fmt: skip


def run_learner(
    server: EngineServer, settings: RunConfig, run: RunDir | None = None
) -> tuple[RunDir, subprocess.CompletedProcess[str]]:
    """A learner's process from start to end, with a worker beside it."""
    run = run or create_run(settings)
    with tempfile.TemporaryDirectory(prefix="rltrain-") as short:
        place = place_of(server, settings, f"ipc://{short}/q", str(run.path))
        os.environ[build.TOKEN_ENV] = server.api_key
        ended = threading.Event()
        worker = threading.Thread(target=_work, args=(settings, place, ended), daemon=True)
        worker.start()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "rltrain.launch.child", "learner", str(run.path)],
                env={**os.environ, **place.to_env(), "PYTHONPATH": str(Path(__file__).parents[2]),
                     "RLTRAIN_PARENT": str(os.getpid()), "OMP_NUM_THREADS": "1"},
                capture_output=True, text=True, timeout=240, check=False,
            )  # fmt: skip
        finally:
            ended.set()
            worker.join(timeout=20)
    return run, done


def _work(settings: RunConfig, place: build.Place, ended: threading.Event) -> None:
    async def serve() -> None:
        made, close = build.worker(settings, place, "worker-0")
        serving = asyncio.ensure_future(made.run(8))
        while not serving.done() and not ended.is_set():  # a learner that was refused says nothing
            await asyncio.wait({serving}, timeout=0.2)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await close()

    asyncio.run(serve())
