"""What runs first in every child process: tie its life to the parent's, then do its role.

    learner RUN_DIR          the training loop
    worker RUN_DIR NAME      rollouts
    offline RUN_DIR FOLDER   TRL's trainer on stored answers, from the policy in FOLDER
    build-policy CONFIG OUT  warm up the embedded policy; CONFIG is a config.yaml
    build-judge CONFIG OUT   train the embedded judge

An error that was raised on purpose ends the process with code 2 and one line on standard error
that starts with `error: `; anything else is a bug and leaves its traceback in the log.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

PARENT_ENV = "RLTRAIN_PARENT"
ERROR_PREFIX = "error: "
PROGRESS_PREFIX = "progress: "
_WATCH_S = 0.5
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, and look for a parent that is gone
    already; a thread does the same where there is no prctl."""
    parent = int(os.environ.get(PARENT_ENV, os.getppid()))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def learner(run_dir: str) -> None:
    """Run the loop; closing the dispatcher tells the workers to stop."""
    from rltrain import build
    from rltrain.loop import train
    from rltrain.rundir import RunDir

    run = RunDir(Path(run_dir))
    config = run.load_config()
    parts, source = build.learner_parts(config, run, build.Place.from_env())
    source.start()
    try:
        asyncio.run(
            train(
                parts,
                max_steps=config.max_steps,
                groups_per_step=config.rollout.groups_per_step,
                save_every=config.train.checkpoint_every,
            )
        )
    finally:
        source.close()
        build.finish_learner(run, parts, source)


def worker(run_dir: str, name: str) -> None:
    from rltrain import build
    from rltrain.rundir import RunDir

    config = RunDir(Path(run_dir)).load_config()

    async def serve() -> None:
        made, close = build.worker(config, build.Place.from_env(), name)
        try:
            await made.run(config.rollout.concurrency)
        finally:
            await close()

    asyncio.run(serve())


def offline(run_dir: str, folder: str) -> None:
    """Train on the run's data.jsonl with TRL."""
    from rltrain.launch.offline_learner import learn

    learn(run_dir, folder)


def build_model(kind: str, run_dir: str, out: str) -> None:
    """Build an embedded model into a folder, once. Progress goes to standard output as JSON."""
    from rltrain.launch.models import build_judge_into, build_policy_into
    from rltrain.rundir import RunDir

    config = RunDir(Path(run_dir)).load_config()

    def progress(done: int, total: int, note: str) -> None:
        print(PROGRESS_PREFIX + json.dumps([done, total, note]), flush=True)

    build = build_policy_into if kind == "policy" else build_judge_into
    build(config, Path(out), progress)


ROLES: dict[str, Callable[..., None]] = {
    "learner": learner,
    "worker": worker,
    "offline": offline,
    "build": build_model,
}


def main() -> None:
    from rltrain.errors import RltrainError

    die_with_parent()
    role, *args = sys.argv[1:]
    try:
        ROLES[role](*args)
    except RltrainError as error:
        sys.exit(f"{ERROR_PREFIX}{error}")
    except OSError as error:
        if error.errno is None:
            raise
        sys.exit(f"{ERROR_PREFIX}{error.strerror}: {error.filename or 'no file named'}")


if __name__ == "__main__":
    main()
