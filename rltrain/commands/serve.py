"""`rltrain serve`: a run's policy, or the promoted one, behind an OpenAI-compatible server."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from rltrain.config.rollout import EngineConfig
from rltrain.errors import ChildDied, UserError
from rltrain.launch.export import ADAPTER_CONFIG, export_run
from rltrain.launch.registry import Registry
from rltrain.launch.servers import engine_dtype
from rltrain.rollout.engine_server import EngineServer, EngineSpec
from rltrain.rundir import RunDir

BASE = "base"
"""Name under which an adapter's base model answers."""
KEY_ENV = "RLTRAIN_SERVE_API_KEY"
POLL_S = 0.5


def main(args: list[str]) -> None:
    options = _parse(args)
    with tempfile.TemporaryDirectory(prefix="rltrain-") as work:
        folder, engine, dtype = _policy(options, Path(work))
        server = make_server(folder, options.name, engine, dtype, options.port, options.log)
        with server:
            took = server.wait_ready()
            print(f"{folder} answers as model {options.name!r} after {took:.0f} s", flush=True)
            print(f"export OPENAI_BASE_URL={server.url}/v1", flush=True)
            if KEY_ENV not in os.environ:
                print(f"export OPENAI_API_KEY={server.api_key}", flush=True)
            print("Ctrl-C ends it", flush=True)
            while server.poll() is None:
                time.sleep(POLL_S)
            raise ChildDied(f"the server ended: {server.cause()} (log: {options.log})")


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="rltrain serve",
        description="Serve a policy with vLLM on the loopback interface, behind a token (made here "
        f"and printed, or yours from {KEY_ENV}). An adapter is served over its base model.",
        epilog="example: rltrain serve runs/segments_cpu --port 8000    or: rltrain serve segments",
    )
    parser.add_argument("policy", help="run directory, or a promoted name of the registry")
    parser.add_argument("--registry", type=Path, default=Path("registry"))
    parser.add_argument("--version", type=int, help="of a promoted name (default: in service)")
    parser.add_argument("--name", default="policy", help="model name for clients")
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    parser.add_argument("--log", type=Path, default=Path("serve.log"), help="the engine's log")
    return parser.parse_args(args)


def _policy(options: argparse.Namespace, work: Path) -> tuple[Path, EngineConfig, str]:
    """Folder to serve, and how the run that made it served it."""
    given = Path(options.policy)
    if given.is_dir():
        run = RunDir(given.resolve())
        config = run.load_config()
        return export_run(run, work), config.engine, engine_dtype(config)
    registry = Registry(options.registry, options.policy)
    version = options.version or registry.current()
    if version is None:
        raise UserError(
            f"{options.policy} is neither a run directory nor promoted in {options.registry}; "
            "see `rltrain promote --help`"
        )
    return registry.weights(version), EngineConfig(), "auto"


def make_server(
    folder: Path, name: str, engine: EngineConfig, dtype: str, port: int, log: Path
) -> EngineServer:
    """A plain server of a model, or of an adapter over its base. Raises `UserError` for an adapter
    whose base is gone."""
    extra: tuple[str, ...] = ()
    rank, model, shown = None, folder, name
    if (folder / ADAPTER_CONFIG).is_file():
        adapter = json.loads((folder / ADAPTER_CONFIG).read_text())
        rank, shown = int(adapter["r"]), BASE
        model = Path(adapter["base_model_name_or_path"])
        if not (model / "config.json").is_file():
            raise UserError(f"the base model of {folder} is not at {model}; put it back there")
        extra = ("--lora-modules", f"{name}={folder}")
    config = EngineConfig(**{**engine.model_dump(), "port": port, "extra_args": extra})
    spec = EngineSpec(model=model, name=shown, dtype=dtype, lora_rank=rank, dev=False)
    return EngineServer(config, spec, log, api_key=os.environ.get(KEY_ENV))
