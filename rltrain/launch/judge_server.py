"""The judge of a config, ready to be asked outside of a run: built if need be, and served."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rltrain.config import RunConfig
from rltrain.launch.children import Child
from rltrain.launch.models import judge_folder
from rltrain.launch.servers import serving
from rltrain.rundir import create_run
from rltrain.warmup.cache import is_complete

POLL_S = 0.2


@contextmanager
def judge_endpoint(config: RunConfig, say: Callable[[str], None]) -> Iterator[str | None]:
    """Base URL of our own judge server, ending in /v1; None where every judge has an endpoint.

    Raises `ChildDied` if the embedded judge cannot be built, and what `serving` raises."""
    if not config.rewards.judge.own_server:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="rltrain-") as work:
        folder = build_judge(config, Path(work), say)
        with serving(config, None, folder, Path(work), say) as servers:
            yield servers.judge_endpoint


def build_judge(config: RunConfig, work: Path, say: Callable[[str], None]) -> str:
    """The embedded judge's folder, built in a child process if it is not complete. work: where the
    child finds its config and leaves its log. Raises `ChildDied`."""
    folder = judge_folder(config)
    if is_complete(Path(folder)):
        return folder
    say("building the judge")
    run = create_run(config.model_copy(update={"runs_dir": str(work), "name": "build"}))
    child = Child("building the judge", ["build", "judge", str(run.path), folder],
                  run.logs / "build-judge.log")  # fmt: skip
    try:
        while child.poll() is None:
            time.sleep(POLL_S)
        child.check()
    finally:
        child.stop()
    return folder
