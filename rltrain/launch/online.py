"""The stages of a run that samples what it learns from.

    models -> servers -> evaluate -> [ learner + workers, supervised ] -> evaluate -> export

Every stage leaves a fact behind when it is done; a run that is continued skips those stages.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rltrain import build
from rltrain.config import RunConfig
from rltrain.launch.attempts import Attempts
from rltrain.launch.calibrations import stood_on
from rltrain.launch.children import Child
from rltrain.launch.evaluation import WeightsLost, run_evaluation
from rltrain.launch.export import export_run
from rltrain.launch.heartbeat import beat_file
from rltrain.launch.members import ChildMember, ServerMember
from rltrain.launch.models import ensure_models
from rltrain.launch.servers import engine_dtype, engine_version, serving
from rltrain.launch.supervise import Supervisor
from rltrain.protocols import Teachable
from rltrain.rewards import calibrate
from rltrain.rundir import RunDir
from rltrain.track import (
    ProgressView,
    append_event,
    eval_path,
    follow,
    read_fact,
    read_metrics,
    write_fact,
)
from rltrain.types import Task

LEARNER = "learner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every stage of a run needs."""

    config: RunConfig
    run: RunDir
    tasks: Sequence[Task]
    """Held out, for the evaluations."""
    view: ProgressView
    attempts: Attempts

    def done(self, fact: str) -> bool:
        """Whether the stage that leaves this fact behind is done."""
        return read_fact(self.run.path, fact) is not None

    def tell(self, process: str, text: str) -> None:
        """A process was started again, and why."""
        append_event(self.run.path, process=process, kind="restart", text=text)
        self.view.message(f"{process} {text}")


Stages = Callable[[Job], None]


def train_online(job: Job) -> None:
    """Every stage that is not done yet."""
    if not job.done("eval_after"):
        _serve_and_train(job)
    _finish(job)


def replay(job: Job) -> None:
    """Train on the rollouts of another run: no engine, no workers, nothing to evaluate with."""
    config = job.config
    job.attempts.phase("build_s")
    policy, _, _ = ensure_models(config, job.run, job.view.phase, with_judge=False)
    job.attempts.phase("train_s")
    dtype = engine_dtype(config)
    place = build.Place(model=policy, engines=(), judge=None, queue="", dtype=dtype)
    with Supervisor(config.supervise, job.tell) as supervisor:
        _run_loop(job, replace(place, run=str(job.run.path)), supervisor)
    _finish(job)


def _finish(job: Job) -> None:
    job.attempts.phase(None)
    export_run(job.run, job.run.path)
    parts = dict.fromkeys(("build_s", "setup_s", "train_s", "eval_s"), 0.0)
    # Last of all: a run that has its timing is complete.
    write_fact(
        job.run.path, "timing", {**parts, **job.attempts.seconds(), **_loop_seconds(job.run)}
    )


def _serve_and_train(job: Job) -> None:
    config, run = job.config, job.run
    job.attempts.phase("build_s")
    calibrates = config.measures_judge and not job.done("judge")
    with_judge = config.uses_judge or calibrates
    policy, judge, _ = ensure_models(config, run, job.view.phase, with_judge=with_judge)
    job.attempts.phase("setup_s")
    with (
        tempfile.TemporaryDirectory(prefix="rltrain-") as queue,  # a socket's path must be short
        serving(config, policy, judge, run.logs, job.view.phase) as servers,
        Supervisor(config.supervise, job.tell) as supervisor,
    ):
        supervisor.watch(ServerMember("engine", servers.policy))
        if servers.judge:
            supervisor.watch(ServerMember("judge", servers.judge))
        place = build.Place(
            model=policy,
            engines=(servers.policy.url,),
            judge=servers.judge_endpoint,
            queue=f"ipc://{queue}/learner",
            dtype=engine_dtype(config),
            run=str(run.path),
        )
        engine = {"name": "vllm", "version": engine_version(), "dtype": place.dtype}
        write_fact(run.path, "engine", {**engine, "start_s": servers.start_s})
        job.attempts.phase(None)
        if calibrates:
            job.view.phase("calibrating the judge")
            _calibrate(config, run, place)
        if not config.uses_judge:
            supervisor.release("judge")
            servers.retire_judge()
        if not job.done("eval_before"):
            _evaluate(job, place, "before", 0, supervisor.check)
        while not job.done("eval_after"):
            job.attempts.phase("train_s")
            _run_loop(job, place, supervisor)
            try:
                _evaluate(job, place, "after", config.max_steps, supervisor.check)
            except WeightsLost:  # the learner finds nothing to train, and pushes what it has
                job.view.message("the engine was restarted; it gets the final weights again")


def _evaluate(
    job: Job, place: build.Place, when: str, version: int, check: Callable[[], None]
) -> None:
    def done(count: int) -> None:
        job.view.phase(f"evaluating {when} training", count, len(job.tasks))

    job.attempts.phase("eval_s")
    path = eval_path(job.run.path, when)
    facts = run_evaluation(job.config, place, job.tasks, path, done, version, check)
    write_fact(job.run.path, f"eval_{when}", {**facts, "split": job.config.eval.split})
    job.attempts.phase(None)


def _calibrate(config: RunConfig, run: RunDir, place: build.Place) -> None:
    """Measure the judge against executed truth on labelled held-out pairs, where the environment
    has such pairs; an unusable judge stops the run here."""
    env = build.environment(config.environment)

    async def measure() -> dict[str, Any] | None:
        judge = build.judge(config, env, place.judge, place.report)
        try:
            await judge.preflight()
            if not isinstance(env, Teachable):
                return None
            pairs = env.judge_examples(config.rewards.judge.calibrate, 1, config.eval.split)
            return await calibrate(judge, list(pairs), seed=0)
        finally:
            await judge.aclose()

    facts = asyncio.run(measure())
    stood = stood_on(config, env) if config.uses_judge else None
    if facts is not None or stood:
        facts = {**(facts or {}), "split": config.eval.split}
        write_fact(run.path, "judge", {**facts, "calibration": stood} if stood else facts)


def _run_loop(job: Job, place: build.Place, supervisor: Supervisor) -> None:
    """Run learner and workers until the last step is done, and show progress.

    Raises what stopped the run: a spent budget of restarts, or an error that none cures."""
    config, run, view = job.config, job.run, job.view
    view.phase("starting learner and workers")

    def member(name: str, args: list[str], threads: int) -> ChildMember:
        env = {**replace(place, process=name).to_env(), "OMP_NUM_THREADS": str(threads)}
        log = run.logs / f"{name}.log"
        return ChildMember(name, lambda: Child(name, args, log, env), beat_file(run.path, name))

    learner = member(LEARNER, ["learner", str(run.path)], config.train.threads)
    names = [] if config.rollout.replay else [f"worker-{n}" for n in range(config.rollout.workers)]
    workers = [member(name, ["worker", str(run.path), name], 1) for name in names]
    ended = threading.Event()
    watcher = threading.Thread(
        target=follow, args=(run.metrics, view), kwargs={"done": ended.is_set}, daemon=True
    )
    watcher.start()
    try:
        supervisor.start(learner, workers)
        supervisor.wait(LEARNER)
    finally:
        supervisor.release(LEARNER, *names)
        ended.set()
        watcher.join(timeout=5)


def _loop_seconds(run: RunDir) -> dict[str, float]:
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
