"""Verdicts that were given already, by task and by the answer as the check saw it.

Siblings often say the same, and at the same time: the second asker of a question that is on its way
waits for its verdict. A fault reaches everybody who waited for it and is then forgotten.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace

from rltrain.types import Verdict

MOST = 65_536
"""Verdicts that one stage remembers; the one used longest ago goes first."""

Key = tuple[str, str]


class VerdictMemory:
    """Remembers the verdicts of one check. Use one instance inside one event loop."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: OrderedDict[Key, Verdict] = OrderedDict()
        self._asked: dict[Key, asyncio.Task[Verdict]] = {}

    async def get(self, key: Key, ask: Callable[[], Awaitable[Verdict]]) -> Verdict:
        """The verdict on `key`, asked for at most once. Raises whatever `ask` raises."""
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return replace(known, cached=True)
        task = self._asked.get(key)
        first = task is None
        if task is None:
            task = asyncio.create_task(self._ask(key, ask))
            self._asked[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        # Shielded: if one of several askers is cancelled, the others still get their verdict.
        verdict = await asyncio.shield(task)
        return verdict if first else replace(verdict, cached=True)

    async def _ask(self, key: Key, ask: Callable[[], Awaitable[Verdict]]) -> Verdict:
        verdict = await ask()
        self._known[key] = verdict
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return verdict

    def _landed(self, key: Key, done: asyncio.Task[Verdict]) -> None:
        del self._asked[key]
        if not done.cancelled():
            done.exception()  # marks it as seen: every asker may have been cancelled
