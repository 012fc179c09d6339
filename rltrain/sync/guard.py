"""Keeps the engines on the current weights while the learner waits for groups.

An engine that was started anew serves the initial weights; clients refuse its tokens and wait. So
must the learner not: it looks at the versions now and then, and pushes again what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from rltrain.protocols import WeightSync

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

POLL_S = 2.0


async def guarded(
    wait: Callable[[], T], sync: WeightSync, model: torch.nn.Module, version: int
) -> T:
    """The result of `wait`, which blocks in a thread; meanwhile engines that serve anything else
    than `version` get the weights again.

    Raises what `wait` or `push` raises. In the latter case the thread is left to itself."""
    waiting = _in_thread(wait)
    while not (await asyncio.wait({waiting}, timeout=POLL_S))[0]:
        if not await sync.serves(version):
            await sync.push(model, version)
    return await waiting


def _in_thread(wait: Callable[[], T]) -> asyncio.Future[T]:
    # Not `asyncio.to_thread`: leaving the event loop would wait for its threads, however long.
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = wait()
        except BaseException as error:
            finish(future.set_exception, error)
        else:
            finish(future.set_result, result)

    def finish(settle: Callable[..., None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it who waited
            loop.call_soon_threadsafe(lambda: None if future.done() else settle(value))

    threading.Thread(target=run, name="wait", daemon=True).start()
    return future
