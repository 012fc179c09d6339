"""What the supervisor can start, watch, kill and start again: children and servers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

from rltrain.launch.children import Child, how
from rltrain.rollout.engine_server import EngineServer

CHILD_START_S = 120.0
"""Longest until a child's first sign of life: the interpreter starts, no more."""
PULSE_S = 2.0
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a process ended."""

    text: str
    code: int
    words: str = ""
    """The error that it named itself; empty if it was killed."""
    log: Path | None = None

    def __str__(self) -> str:
        return f"{self.text} (log: {self.log})" if self.log else self.text


class Member(Protocol):
    """A process that can be started any number of times. Used by one thread at a time."""

    name: str
    start_s: float
    """Longest until its first sign of life."""
    finishes: bool
    """Whether it ends well by itself; a server never does."""

    def start(self) -> None:
        """Start it, and return at once. Raises `UserError` or `OSError`."""
        ...

    def ended(self) -> End | None: ...

    def mark(self) -> object:
        """Something that changes as long as it is alive."""
        ...

    def kill(self) -> None:
        """End it now, with all that it started."""
        ...

    def stop(self) -> None:
        """End it, and the watching, for good."""
        ...


def _end(code: int, cause: Callable[[], str], log: Path) -> End:
    if code <= 0:
        return End(text=how(code), code=code, log=log)
    words = cause()
    return End(text=f"{how(code)}: {words}", code=code, words=words, log=log)


class ChildMember:
    """A learner or a worker, by the file that it touches every second."""

    start_s = CHILD_START_S
    finishes = True

    def __init__(self, name: str, make: Callable[[], Child], beats: Path) -> None:
        """make: starts the process."""
        self.name = name
        self._make = make
        self._beats = beats
        self._child: Child | None = None

    def start(self) -> None:
        self._child = self._make()

    def ended(self) -> End | None:
        child = self._child
        code = child.poll() if child else None
        return None if code is None or child is None else _end(code, child.cause, child.log)

    def mark(self) -> object:
        try:
            return self._beats.stat().st_mtime_ns
        except OSError:
            return None

    def kill(self) -> None:
        if self._child:
            self._child.kill()

    def stop(self) -> None:
        if self._child:
            self._child.stop()


class ServerMember:
    """A vLLM server, by whether it answers. It runs already when it becomes a member."""

    finishes = False

    def __init__(self, name: str, server: EngineServer) -> None:
        self.name = name
        self.start_s = server.config.start_timeout_s
        self._server = server
        self._beats = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._pulse, name=f"pulse {name}", daemon=True)
        self._thread.start()

    def start(self) -> None:
        self._server.restart()

    def ended(self) -> End | None:
        code = self._server.poll()
        return None if code is None else _end(code, self._server.cause, self._server.log)

    def mark(self) -> object:
        return self._beats

    def kill(self) -> None:
        self._server.kill()

    def stop(self) -> None:
        """End the watching; whoever started the server stops it."""
        self._closed.set()

    def _pulse(self) -> None:
        with httpx.Client(timeout=_ANSWER_S, trust_env=False) as http:
            while not self._closed.wait(PULSE_S):
                with contextlib.suppress(OSError, RuntimeError):  # it is being restarted
                    self._beats += self._server.alive(http)
