"""An offline run: data -> evaluate -> [ TRL's trainer, supervised ] -> evaluate.

The start and the end are those of every run (`training`): the same run directory, the same held-out
tasks through a fresh vLLM, the same summary and report. A reward model answers nothing, so it is
measured by how it ranks held-out pairs instead.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rltrain import build
from rltrain.config import RunConfig
from rltrain.errors import UserError
from rltrain.launch.children import Child
from rltrain.launch.evaluation import run_evaluation
from rltrain.launch.export import export_run
from rltrain.launch.models import ensure_models
from rltrain.launch.offline_data import read_source
from rltrain.launch.online import Job, Stages
from rltrain.launch.servers import engine_dtype, engine_version, serving
from rltrain.rundir import RunDir
from rltrain.track import ProgressView, eval_path, follow, write_fact

DATA = "data.jsonl"
"""What a run learned from, beside its config."""


def prepare_offline(config: RunConfig) -> Stages:
    """Check the settings and read the data, before anything is created; returns the run's stages.

    Raises `UserError` for settings that TRL would refuse and for data that cannot be had.
    """
    from rltrain.offline.rows import write_rows
    from rltrain.offline.trainers import check
    from rltrain.train.model import pick_device

    check(config, pick_device(config.train.device).type == "cpu")
    rows, facts = read_source(config)

    def stages(job: Job) -> None:
        if job.attempts.number > 1:
            raise UserError(
                f"{job.run.path} trains with algo.method={config.algo.method}, which cannot be "
                "continued; start it anew with overwrite=true instead of resume=auto"
            )
        write_rows(job.run.path / DATA, rows)
        write_fact(job.run.path, "data", facts)
        timing = _stages(job.config, job.run, job.tasks, job.view)
        write_fact(job.run.path, "timing", {**timing, **job.attempts.seconds()})

    return stages


def _stages(config: RunConfig, run: RunDir, tasks: Any, view: ProgressView) -> dict[str, float]:
    policy, _, build_s = ensure_models(config, run, view.phase)
    evaluated = config.algo.method != "reward_model"
    seconds = {"build_s": build_s, "setup_s": 0.0, "eval_s": 0.0}

    def evaluate(when: str, folder: str, version: int) -> None:
        setup_s, eval_s = _evaluate(when, config, run, folder, tasks, view, version)
        seconds["setup_s"] += setup_s
        seconds["eval_s"] += eval_s

    if evaluated:
        evaluate("before", policy, 0)
    seconds["train_s"] = seconds["learn_s"] = _supervise(config, run, policy, view)
    if evaluated:
        with tempfile.TemporaryDirectory(prefix="rltrain-") as work:
            merged = export_run(run, Path(work), merged=True)
            evaluate("after", str(merged), config.max_steps)
    export_run(run, run.path)
    return seconds


def _evaluate(
    when: str,
    config: RunConfig,
    run: RunDir,
    folder: str,
    tasks: Any,
    view: ProgressView,
    version: int,
) -> tuple[float, float]:
    """Serve a whole model with an engine of its own, and evaluate it: (setup, evaluation) in s."""

    def done(count: int) -> None:
        view.phase(f"evaluating {when} training", count, len(tasks))

    plain = config.model_copy(update={"train": config.train.model_copy(update={"lora": None})})
    begun = time.monotonic()
    with serving(plain, folder, None, run.logs, view.phase) as servers:
        setup_s = time.monotonic() - begun
        place = build.Place(
            model=folder,
            engines=(servers.policy.url,),
            judge=None,
            queue="",
            dtype=engine_dtype(plain),
        )
        engine = {"name": "vllm", "version": engine_version(), "dtype": place.dtype}
        write_fact(run.path, "engine", {**engine, "start_s": servers.start_s})
        facts = run_evaluation(plain, place, tasks, eval_path(run.path, when), done, version)
    (run.logs / "engine.log").rename(run.logs / f"engine-{when}.log")  # another engine follows
    write_fact(run.path, f"eval_{when}", {**facts, "split": config.eval.split})
    return setup_s, float(facts["wall_s"])


def _supervise(config: RunConfig, run: RunDir, policy: str, view: ProgressView) -> float:
    """Train in a process of its own and show its progress. Returns the seconds it took.

    Raises `ChildDied` with the cause from its log if it ends early."""
    view.phase(f"starting TRL ({config.algo.method})")
    started = time.monotonic()
    env = {"OMP_NUM_THREADS": str(config.train.threads)}
    child = Child("the trainer", ["offline", str(run.path), policy], run.logs / "learner.log", env)
    ended = threading.Event()
    watcher = threading.Thread(
        target=follow, args=(run.metrics, view), kwargs={"done": ended.is_set}, daemon=True
    )
    watcher.start()
    try:
        while child.poll() is None:
            time.sleep(0.2)
        child.check()
    finally:
        child.stop()
        ended.set()
        watcher.join(timeout=5)
    return time.monotonic() - started
