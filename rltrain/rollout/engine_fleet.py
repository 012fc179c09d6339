"""Which engines can be asked now: the least busy one that is up, or a bounded wait for one.

An engine that was found out of reach is knocked on by one task until it is ready again; all
requests wait for that task, so that no number of them storms an engine that is just starting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from rltrain.outage import Outages

_KNOCK_S, _KNOCK_MAX_S = 0.2, 2.0


class Fleet:
    """Belongs to one event loop; `aclose()` it."""

    def __init__(
        self, urls: Sequence[str], ready: Callable[[str], Awaitable[bool]], outages: Outages
    ) -> None:
        """ready: whether an engine may be asked; never raises."""
        self.busy = dict.fromkeys(urls, 0)
        self._ready = ready
        self._outages = outages
        self._knocking: dict[str, asyncio.Task[None]] = {}

    def pick(self, among: Sequence[str], tried: Sequence[str]) -> str | None:
        """The engine to ask: one that this request tried least, then the least busy. None while
        all of them are out of reach."""
        up = [url for url in among if url not in self._knocking]
        return min(up, key=lambda url: (tried.count(url), self.busy[url]), default=None)

    def away(self, url: str, cause: str) -> None:
        """Ask nobody to use this engine until it is ready again."""
        if url not in self._knocking:
            task = asyncio.create_task(self._knock(url, cause))
            self._knocking[url] = task
            task.add_done_callback(lambda done: self._back(url, done))

    async def wait(self, among: Sequence[str], timeout_s: float) -> None:
        """Until one of these engines is up, or the time is over. Never raises."""
        tasks = [self._knocking[url] for url in among if url in self._knocking]
        if len(tasks) == len(among):
            await asyncio.wait(
                tasks, timeout=max(0.0, timeout_s), return_when=asyncio.FIRST_COMPLETED
            )

    async def aclose(self) -> None:
        tasks = list(self._knocking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _knock(self, url: str, cause: str) -> None:
        delay_s = _KNOCK_S
        self._outages.failed(f"engine {url}", cause)
        while True:
            await asyncio.sleep(delay_s)
            if await self._ready(url):
                self._outages.answered(f"engine {url}")
                return
            self._outages.failed(f"engine {url}", cause)
            delay_s = min(2 * delay_s, _KNOCK_MAX_S)

    def _back(self, url: str, done: asyncio.Task[None]) -> None:
        del self._knocking[url]
        if not done.cancelled():
            done.exception()  # seen; a bug in `ready` shows as an engine that is asked again
