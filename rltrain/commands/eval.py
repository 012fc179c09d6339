"""`rltrain eval`: greedy evaluation of a finished run's policy on held-out tasks."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from rltrain import build
from rltrain.config import RunConfig
from rltrain.errors import UserError
from rltrain.launch.evaluation import held_out, run_evaluation
from rltrain.launch.export import export_run
from rltrain.launch.servers import engine_dtype, serving
from rltrain.rundir import RunDir
from rltrain.track import ProgressView


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="rltrain eval",
        description="Serve a policy with vLLM and evaluate it greedily on held-out tasks. Prints "
        "JSON: exact, valid, n, ci95 (Wilson), hack_rate, flags, by_tier.",
        epilog="example: rltrain eval runs/segments_cpu --split validation",
    )
    parser.add_argument("run", type=Path, help="run directory, such as runs/segments_cpu")
    parser.add_argument("--model", type=Path, help="evaluate this model folder instead")
    parser.add_argument("--split", help="default: the run's own eval.split")
    parser.add_argument("--count", type=int, help="default: the run's own eval.tasks")
    options = parser.parse_args(args)
    run = RunDir(options.run.resolve())
    config = _with_count(run.load_config(), options.count)
    env = build.environment(config.environment)
    tasks = held_out(config, env, options.split)
    with tempfile.TemporaryDirectory() as work, ProgressView(0) as view:
        folder = options.model or export_run(run, Path(work), merged=True)
        if not folder.is_dir():
            raise UserError(f"no model at {folder}")
        plain = config.model_copy(update={"train": config.train.model_copy(update={"lora": None})})
        with serving(plain, str(folder), None, Path(work), view.phase) as servers:
            place = build.Place(
                model=str(folder),
                engines=(servers.policy.url,),
                judge=None,
                queue="",
                dtype=engine_dtype(plain),
            )
            out = Path(work) / "rollouts.parquet"
            facts = run_evaluation(
                plain, place, tasks, out, lambda k: view.phase("evaluating", k, len(tasks))
            )
    print(json.dumps({**facts, "model": str(folder), "split": options.split or config.eval.split}))


def _with_count(config: RunConfig, count: int | None) -> RunConfig:
    if count is None:
        return config
    if count < 1:
        raise UserError("--count must be at least 1")
    return config.model_copy(update={"eval": config.eval.model_copy(update={"tasks": count})})
