"""What runs first in every child process: tie its life to the parent's, then do its role.

    learner RUN_DIR          the training loop
    worker RUN_DIR NAME      rollouts
    offline RUN_DIR FOLDER   TRL's trainer on stored answers, from the policy in FOLDER
    build-policy CONFIG OUT  warm up the embedded policy; CONFIG is a config.yaml
    build-judge CONFIG OUT   train the embedded judge

An error that was raised on purpose leaves one line on standard error that starts with `error: `,
and an exit code that says whether starting the process again could help (`LASTING`) or not;
anything else is a bug and leaves its traceback in the log. Learner and workers give signs of life.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rltrain.launch.heartbeat import Heart

PARENT_ENV = "RLTRAIN_PARENT"
ERROR_PREFIX = "error: "
PROGRESS_PREFIX = "progress: "
_WATCH_S = 0.5
USER_CODE, STOPPED_CODE, FAULT_CODE = 2, 3, 4
LASTING = (USER_CODE, STOPPED_CODE)
"""Exit codes of errors that another start would only meet again."""
_LASTING_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
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
    """Run the loop from where the run stands; closing tells the workers to stop."""
    from rltrain.build import Place
    from rltrain.learning import learning
    from rltrain.loop import train
    from rltrain.rundir import RunDir

    run = RunDir(Path(run_dir))
    config = run.load_config()
    made = learning(config, run, Place.from_env())
    made.source.start()
    finished = False
    try:
        asyncio.run(
            train(
                made.parts,
                max_steps=config.max_steps,
                groups_per_step=config.rollout.groups_per_step,
                save_every=config.train.checkpoint_every,
            )
        )
        finished = True
    finally:
        made.close(run, finished=finished)


def worker(run_dir: str, name: str) -> None:
    from rltrain import build
    from rltrain.rundir import RunDir

    config = RunDir(Path(run_dir)).load_config()
    heart = _heart(run_dir, name)

    async def serve() -> None:
        made, close = build.worker(config, build.Place.from_env(), name)
        beating = asyncio.create_task(heart.beat_on())
        try:
            await made.run(config.rollout.concurrency)
        finally:
            beating.cancel()
            await close()

    asyncio.run(serve())


def _heart(run_dir: str, name: str) -> Heart:
    from rltrain.launch.heartbeat import Heart, beat_file

    heart = Heart(beat_file(Path(run_dir), name))
    heart.start()
    return heart


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
    from rltrain.errors import ChildDied, RltrainError, SystemFault, UserError

    die_with_parent()
    role, *args = sys.argv[1:]
    if role == "learner":
        _heart(args[0], role)
    try:
        ROLES[role](*args)
    except UserError as error:
        _end(str(error), USER_CODE)
    except (ChildDied, SystemFault) as error:
        _end(str(error), FAULT_CODE)
    except RltrainError as error:
        _end(str(error), STOPPED_CODE)
    except OSError as error:
        if error.errno is None:
            raise
        code = STOPPED_CODE if error.errno in _LASTING_ERRNO else FAULT_CODE
        _end(f"{error.strerror}: {error.filename or 'no file named'}", code)


def _end(text: str, code: int) -> None:
    print(f"{ERROR_PREFIX}{text}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
