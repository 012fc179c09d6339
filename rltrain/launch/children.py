"""Child processes of a run: each dies with its parent, writes its own log, and is named in errors.

    python -m rltrain.launch.child ROLE RUN_DIR NAME
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from rltrain.errors import ChildDied
from rltrain.launch.child import ERROR_PREFIX, PARENT_ENV
from rltrain.rollout.engine_args import keep_bytecode

GRACE_S = 10.0


class Child:
    """One process of the run, in its own process group."""

    program: ClassVar[tuple[str, ...]] = ("-m", "rltrain.launch.child")
    """What the interpreter is given before the arguments."""

    def __init__(
        self, name: str, args: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            self._log_start = sink.tell()  # a process that is started again writes on
            self.process = subprocess.Popen(
                [sys.executable, *self.program, *args],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**_environment(), **(env or {}), PARENT_ENV: str(os.getpid())},
            )

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""
        return self.process.poll()

    def check(self) -> None:
        """Raise `ChildDied`, with the cause from its log, if it ended with an error."""
        code = self.poll()
        if code:
            raise ChildDied(f"{self.name} {how(code)}: {self.cause()} (log: {self.log})")

    def cause(self) -> str:
        """The error that the process named itself, or the last line it wrote."""
        text = self.log.read_bytes()[self._log_start :].decode(errors="replace")
        lines = [x.strip() for x in text.splitlines() if x.strip()]
        named = [x.removeprefix(ERROR_PREFIX) for x in lines if x.startswith(ERROR_PREFIX)]
        return (named or lines or ["no output"])[-1]

    def wait(self, timeout_s: float) -> int | None:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End the whole group: asked first, killed after a grace period."""
        for number, grace_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
            if self.poll() is not None:
                break
            with _ignoring_gone():
                os.killpg(self.process.pid, number)
            self.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """End the whole group now."""
        with _ignoring_gone():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait(GRACE_S)


def _environment() -> dict[str, str]:
    env = dict(os.environ)
    keep_bytecode(env)
    env.setdefault("TOKENIZERS_PARALLELISM", "false")
    return env


class _ignoring_gone:
    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return isinstance(error, ProcessLookupError | PermissionError)


def how(code: int) -> str:
    """How a process ended, by its exit code: `was killed by SIGKILL`, `ended with code 3`."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def wait_all(children: Sequence[Child], *, poll_s: float = 0.2) -> None:
    """Wait until every child ended well. Raises `ChildDied` as soon as one did not."""
    while any(child.poll() is None for child in children):
        for child in children:
            child.check()
        time.sleep(poll_s)
    for child in children:
        child.check()
