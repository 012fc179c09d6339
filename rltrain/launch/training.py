"""A whole run, from config to report: checks, the run directory, its stages, the report.

`online`, `replay` and `offline` are the stages; `resume` says whether a run is a new one.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from typing import Any

from rltrain import build
from rltrain.config import RunConfig
from rltrain.launch.attempts import Attempts
from rltrain.launch.calibrations import require_calibrated
from rltrain.launch.evaluation import held_out
from rltrain.launch.models import policy_folder
from rltrain.launch.offline import prepare_offline
from rltrain.launch.online import Job, Stages, replay, train_online
from rltrain.launch.resume import Opened, open_run
from rltrain.launch.versions import versions
from rltrain.report import write_report, write_summary
from rltrain.rundir import RunDir
from rltrain.track import (
    ProgressView,
    append_event,
    finish_wandb,
    read_fact,
    read_metrics,
    write_fact,
)


def train(config: RunConfig) -> RunDir:
    """Run everything, or what `resume=auto` finds left to do; returns the finished run.

    Raises `RltrainError`; no process is left behind. A run that fails still gets its summary and
    report, which say what is missing.
    """
    build.check_names(config)
    env = build.environment(config.environment)
    build.rewarder(config, env, None)  # names of gates and detectors, before anything is started
    build.check_rewards(config, env)
    require_calibrated(config, env)
    tasks = held_out(config, env)
    policy_folder(config)  # a pretrained model that cannot be had
    stages = _stages(config)
    with open_run(config) as opened:
        if opened.complete:
            text = f"{opened.run.path} is complete: all {config.max_steps} steps are done"
            print(text, file=sys.stderr)
        else:
            _attempt(config, opened, stages, tasks)
        return opened.run


def _stages(config: RunConfig) -> Stages:
    if config.algo.offline:
        return prepare_offline(config)
    return replay if config.rollout.replay else train_online


def _attempt(config: RunConfig, opened: Opened, stages: Stages, tasks: Any) -> None:
    run = opened.run
    attempts = Attempts(run)
    if opened.resumed:
        text = f"continued with {len(read_metrics(run.metrics).rows)} of {config.max_steps} steps"
        text += f" recorded (attempt {attempts.number})"
        append_event(run.path, process="front end", kind="resume", text=text)
    if read_fact(run.path, "run") is None:
        write_fact(run.path, "run", _about(config, run, time.time()))
    with ProgressView(config.max_steps) as view:
        view.message(f"run directory: {run.path}")
        try:
            stages(Job(config=config, run=run, tasks=tasks, view=view, attempts=attempts))
            view.phase("writing the report")
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            append_event(run.path, process="front end", kind="stopped", text=text)
            raise
        finally:
            attempts.end()
            summary = write_summary(run.path)
            write_report(run.path)
    facts = json.loads(summary.read_text(encoding="utf-8"))
    finish_wandb(run.path, config.track, config=config.model_dump(mode="json"), summary=facts)


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
