"""The sandbox as its caller sees it: start a cell, read what comes out, leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from rltrain.errors import EnvironmentFault, UserError

OUTPUT_BYTES = 64 << 10
"""Of each stream. A program that says more is ended."""
GRACE_S = 5.0
"""How much longer than the program a cell may take before it counts as broken."""
_CELL = Path(__file__).with_name("cell.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a program did. Every field but `protections` is the policy's doing."""

    stdout: str
    """At most `OUTPUT_BYTES`, invalid UTF-8 replaced."""
    stderr: str
    exit: int | None
    """Exit code; None unless `reason` is `exited`."""
    reason: str
    """`exited`, `killed by SIGNAL`, `time` (used up) or `output` (too much of it)."""
    protections: frozenset[str]
    """Walls that stood: `user`, `processes`, `network`, `files`."""
    wall_s: float


def run(
    program: str | Sequence[str],
    *,
    time_s: float = 5.0,
    memory_mb: int = 256,
    files_mb: int = 16,
    network: bool = False,
    stdin: str = "",
    require: Collection[str] = (),
) -> Outcome:
    """Run Python source (a string) or a command line (a sequence) and wait for its end.

    Python runs isolated, with the standard library alone. Blocking and safe to call from threads:
    `await asyncio.to_thread(run, ...)`. A program name is looked up in this process's PATH; with
    the wall `files` it sees /usr, /bin, /lib* and this Python only.

    Raises:
        EnvironmentFault: if the sandbox itself failed (no process to be had, no such program).
        UserError: if a wall in `require` cannot be built on this machine.
    """
    if require:
        _demand(require, network)
    argv = None if isinstance(program, str) else [storable(part) for part in program]
    if argv is not None and (not argv or any("\0" in part for part in argv)):
        raise EnvironmentFault("the sandbox was given no command line, or one with a NUL in it")
    spec = {
        "python": os.path.realpath(sys.executable),
        "prefix": os.path.realpath(sys.base_prefix),
        "source": storable(program) if isinstance(program, str) else None,
        "argv": argv,
        "time_s": time_s, "memory": memory_mb << 20, "files": files_mb << 20,
        "network": network, "stdin": storable(stdin),
    }  # fmt: skip
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rltrain-cell-", ignore_cleanup_errors=True) as work:
        Path(work).chmod(0o700)
        told, outputs, flooded = _watch(spec | {"work": work}, time_s)
    return _outcome(told, outputs, flooded, time.monotonic() - started)


@lru_cache(maxsize=2)
def protections(*, network: bool = False) -> frozenset[str]:
    """The walls that this machine allows, tried out once. Raises `EnvironmentFault`."""
    return run("", network=network, time_s=GRACE_S).protections


def storable(text: str) -> str:
    """Text without lone surrogates, which a policy can write and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _demand(require: Collection[str], network: bool) -> None:
    missing = sorted(set(require) - protections(network=network))
    if missing:
        raise UserError(
            f"the sandbox cannot have the wall(s) {', '.join(missing)} on this machine (user "
            "namespaces are switched off, or the container forbids them); allow unprivileged user "
            "namespaces, or leave them out of `require`"
        )


def _watch(
    spec: Mapping[str, Any], time_s: float
) -> tuple[dict[str, Any], dict[str, bytes], bool]:
    """Run the cell. Returns what it reported, the two outputs, and whether they overflowed."""
    status_r, status_w = os.pipe()
    try:
        cell = subprocess.Popen(
            [spec["python"], "-I", "-S", str(_CELL), str(status_w), str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            pass_fds=(status_w,), env={}, cwd="/", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        os.close(status_r)
        raise EnvironmentFault(f"the sandbox cannot start a process: {error}") from error
    finally:
        os.close(status_w)
    with cell, os.fdopen(status_r, "rb") as status:
        try:
            assert cell.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # then its own report says why
                cell.stdin.write(json.dumps(spec).encode())
                cell.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                cell.stdin.close()
            read, flooded = _drain(cell, status, time.monotonic() + time_s + GRACE_S)
        finally:
            _end(cell)
    told: dict[str, Any] = {}
    for line in read["status"].splitlines():
        told |= json.loads(line)
    return told, read, flooded


def _drain(
    cell: subprocess.Popen[bytes], status: IO[bytes], deadline: float
) -> tuple[dict[str, bytes], bool]:
    """Read until the cell closes its report, or too much was said."""
    assert cell.stdout is not None and cell.stderr is not None
    streams = {"stdout": cell.stdout, "stderr": cell.stderr, "status": status}
    read = dict.fromkeys(streams, b"")
    with selectors.DefaultSelector() as selector:
        for name, stream in streams.items():
            selector.register(stream, selectors.EVENT_READ, name)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                block = os.read(key.fd, 1 << 16)
                if not block:
                    selector.unregister(key.fileobj)
                read[key.data] += block
                if key.data != "status" and len(read[key.data]) > OUTPUT_BYTES:
                    return read, True
    return read, False


def _end(cell: subprocess.Popen[bytes]) -> None:
    """The cell takes its program down when asked to; only a broken one has to be killed."""
    if cell.poll() is None:
        cell.send_signal(signal.SIGTERM)
        try:
            cell.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(cell.pid, signal.SIGKILL)
    cell.wait()


def _outcome(
    told: Mapping[str, Any], outputs: Mapping[str, bytes], flooded: bool, wall_s: float
) -> Outcome:
    if "fault" in told:
        raise EnvironmentFault(f"the sandbox failed: {told['fault']}")
    if not flooded and "reason" not in told:
        last = outputs["stderr"].decode(errors="replace").strip().splitlines()[-1:] or ["no report"]
        raise EnvironmentFault(f"the sandbox ended before its program did: {last[0]}")
    texts = {
        name: outputs[name][:OUTPUT_BYTES].decode("utf-8", "replace")
        for name in ("stdout", "stderr")
    }
    code = told.get("exit")
    return Outcome(
        stdout=texts["stdout"],
        stderr=texts["stderr"],
        exit=None if flooded else code,
        reason="output" if flooded else told["reason"],
        protections=frozenset(told.get("walls", ())),
        wall_s=wall_s,
    )
