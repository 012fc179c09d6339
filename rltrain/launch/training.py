"""A whole run, from config to report.

    models -> servers -> evaluate -> [ learner + workers, supervised ] -> evaluate -> report
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rltrain import build
from rltrain.config import RunConfig
from rltrain.errors import ChildDied
from rltrain.launch.children import Child
from rltrain.launch.evaluation import held_out, run_evaluation
from rltrain.launch.export import export_run
from rltrain.launch.models import ensure_models, policy_folder
from rltrain.launch.offline import prepare_offline
from rltrain.launch.servers import Servers, engine_dtype, engine_version, serving
from rltrain.launch.versions import versions
from rltrain.protocols import Teachable
from rltrain.report import write_report, write_summary
from rltrain.rewards import calibrate
from rltrain.rundir import RunDir, create_run
from rltrain.track import ProgressView, append_event, eval_path, follow, write_fact

QUEUE_ROOT_CHARS = 90
"""Unix socket paths end at 107 characters."""


def train(config: RunConfig) -> RunDir:
    """Run everything; returns the finished run. Raises `RltrainError`; no process is left behind.

    A run that fails still gets its summary and report, which say what is missing.
    """
    build.check_names(config)
    env = build.environment(config.environment)
    build.rewarder(config, env, None)  # names of gates and detectors, before anything is started
    tasks = held_out(config, env)
    policy_folder(config)  # a pretrained model that cannot be had
    stages = prepare_offline(config) if config.algo.offline else _train
    run = create_run(config)
    started = time.time()
    write_fact(run.path, "run", _about(config, run, started))
    with ProgressView(config.max_steps) as view:
        view.message(f"run directory: {run.path}")
        try:
            timing = stages(config, run, tasks, view)
            timing["wall_s"] = time.time() - started
            write_fact(run.path, "timing", timing)
            view.phase("writing the report")
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            append_event(run.path, process="front end", kind="stopped", text=text)
            raise
        finally:
            write_summary(run.path)
            write_report(run.path)
    return run


def _train(config: RunConfig, run: RunDir, tasks: Any, view: ProgressView) -> dict[str, float]:
    policy, judge, build_s = ensure_models(config, run, view.phase)
    queue = Path(tempfile.mkdtemp(prefix="rltrain-"))
    begun = time.monotonic()
    with serving(config, policy, judge, run.logs, view.phase) as servers:
        setup_s = time.monotonic() - begun
        place = build.Place(
            model=policy,
            engines=(servers.policy.url,),
            judge=servers.judge_endpoint,
            queue=f"ipc://{queue}/learner",
            dtype=engine_dtype(config),
        )
        engine = {
            "name": "vllm",
            "version": engine_version(),
            "dtype": place.dtype,
            "start_s": servers.start_s,
        }
        write_fact(run.path, "engine", engine)
        if config.measures_judge:
            view.phase("calibrating the judge")
            _calibrate(config, run, place)
        if not config.uses_judge:
            servers.retire_judge()
        before_s = _evaluate("before", config, run, place, tasks, view, 0)
        train_s = _supervise(config, run, place, servers, view)
        after_s = _evaluate("after", config, run, place, tasks, view, config.max_steps)
    export_run(run, run.path)
    return {
        "build_s": build_s,
        "setup_s": setup_s,
        "train_s": train_s,
        "eval_s": before_s + after_s,
        **_loop_seconds(run),
    }


def _evaluate(
    when: str,
    config: RunConfig,
    run: RunDir,
    place: build.Place,
    tasks: Any,
    view: ProgressView,
    version: int,
) -> float:
    def done(count: int) -> None:
        view.phase(f"evaluating {when} training", count, len(tasks))

    facts = run_evaluation(config, place, tasks, eval_path(run.path, when), done, version)
    write_fact(run.path, f"eval_{when}", {**facts, "split": config.eval.split})
    return float(facts["wall_s"])


def _calibrate(config: RunConfig, run: RunDir, place: build.Place) -> None:
    """Measure the judge against executed truth on labelled held-out pairs, where the environment
    has such pairs; an unusable judge stops the run here."""
    env = build.environment(config.environment)

    async def measure() -> dict[str, Any] | None:
        judge = build.judge(config, env, place.judge)
        try:
            await judge.preflight()
            if not isinstance(env, Teachable):
                return None
            pairs = env.judge_examples(config.rewards.judge.calibrate, 1, config.eval.split)
            return await calibrate(judge, list(pairs), seed=0)
        finally:
            await judge.aclose()

    facts = asyncio.run(measure())
    if facts is not None:
        write_fact(run.path, "judge", {**facts, "split": config.eval.split})


def _supervise(
    config: RunConfig, run: RunDir, place: build.Place, servers: Servers, view: ProgressView
) -> float:
    """Start learner and workers, watch all processes, show progress. Returns the seconds it took.

    Raises `ChildDied` as soon as any process ends early; the others are stopped."""
    view.phase("starting learner and workers")
    started = time.monotonic()
    env = {**place.to_env(), "OMP_NUM_THREADS": str(config.train.threads)}
    children = [Child("the learner", ["learner", str(run.path)], run.logs / "learner.log", env)]
    for number in range(config.rollout.workers):
        name = f"worker-{number}"
        args = ["worker", str(run.path), name]
        worker_env = {**env, "OMP_NUM_THREADS": "1"}
        children.append(Child(name, args, run.logs / f"{name}.log", worker_env))
    ended = threading.Event()
    watcher = threading.Thread(
        target=follow, args=(run.metrics, view), kwargs={"done": ended.is_set}, daemon=True
    )
    watcher.start()
    try:
        while any(child.poll() is None for child in children):
            _check(children, servers)
            time.sleep(0.2)
        _check(children, servers)
    finally:
        for child in children:
            child.stop()
        ended.set()
        watcher.join(timeout=5)
    return time.monotonic() - started


def _check(children: list[Child], servers: Servers) -> None:
    dead = servers.check()
    if dead:
        raise ChildDied(dead)
    for child in children:
        child.check()


def _loop_seconds(run: RunDir) -> dict[str, float]:
    from rltrain.track import read_metrics

    rows = read_metrics(run.metrics).rows
    return {
        name: sum(float(row.get(key, 0.0)) for row in rows)
        for name, key in (
            ("generate_s", "time/generate_s"),
            ("wait_s", "time/wait_s"),
            ("learn_s", "time/learn_s"),
            ("sync_s", "time/sync_s"),
        )
    }


def _about(config: RunConfig, run: RunDir, started: float) -> dict[str, Any]:
    return {
        "name": run.path.name,
        "seed": config.seed,
        "started_at": started,
        "versions": versions(),
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "python": sys.version.split()[0],
        },
    }
