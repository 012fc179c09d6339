"""What runs first in an engine process: tie its life to the parent's, then hand over to vLLM.

`EngineServer` starts `python -m rltrain.rollout.engine_boot ARGS`. This module sets up two things
that vLLM does not have, and then calls vLLM's own entry point with ARGS unchanged:

1. No orphans. The kernel kills this process with its parent (PR_SET_PDEATHSIG), and a thread looks
   for a change of parent as well, because that signal follows the *thread* that started us
   (where that thread may end before its process, only the watch is used). Every
   process below inherits the rule: forked ones by a fork hook, spawned ones because
   multiprocessing imports this file again in them, under the name `__mp_main__`.
2. `TokenGuard` (used with `--middleware`), because `--api-key` leaves the dev endpoints open.
"""

from __future__ import annotations

import ctypes
import hmac
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

PARENT = "RLTRAIN_ENGINE_PARENT"
PARENT_THREAD_LASTS = "RLTRAIN_ENGINE_PARENT_LASTS"
FORK = "RLTRAIN_ENGINE_FORK"
_PR_SET_PDEATHSIG = 1
_WATCH_S = 0.25
_OPEN_PATHS = ("/health",)

Scope = MutableMapping[str, Any]


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent ends; a no-op where there is no prctl."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os.killpg(os.getpgrp(), signal.SIGKILL)  # we lead the group that EngineServer made


class TokenGuard:
    """ASGI middleware: every path but /health needs `Authorization: Bearer $VLLM_API_KEY`.

    Answers 401 otherwise. vLLM's own check covers /v1 and /inference only, which would let any
    local user pause the engine or call methods of its workers."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app
        self.expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN_PATHS:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self.expected):
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": b"token missing or wrong"})
                return
        await self.app(scope, receive, send)


def _fork_engine_core() -> None:
    """Let EngineCore be forked from the API server: it then need not import vLLM again (6 s).

    vLLM forces `spawn` on the CPU for the sake of OpenMP settings per worker, which the
    in-process worker used here takes from the environment instead."""
    target: Any = importlib.import_module("vllm.v1.engine.utils")
    target.get_mp_context = lambda: multiprocessing.get_context("fork")


def main() -> None:
    """Take the parent's pid from the environment, set up the watch, and serve until stopped."""
    parent = int(os.environ[PARENT])
    if os.getppid() != parent:
        sys.exit("the process that started this engine is gone")
    if os.environ.get(PARENT_THREAD_LASTS) == "1":
        die_with_parent()
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    os.register_at_fork(after_in_child=die_with_parent)
    if os.environ.get(FORK) == "1":
        _fork_engine_core()
    # What `python -m vllm.entrypoints.openai.api_server` runs; the `vllm` command needs a
    # distribution of that name, which the CPU build is not.
    importlib.import_module("vllm.entrypoints.launchers.api_server.entry").main()


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    die_with_parent()
