"""Asking one judge one question: remembered, shared, retried, waited for.

    messages, form -> memory? -> file? -> in flight? -> POST /chat/completions -> Reading or fault
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rltrain.config.judge import JudgeConfig
from rltrain.errors import JudgeFault, UserError
from rltrain.outage import Outages, Report, unreported
from rltrain.rewards.chat import ChatClient, Unusable
from rltrain.rewards.judge_forms import Form, Reading
from rltrain.rewards.judge_store import JudgeStore
from rltrain.types import Message

MAX_BACKOFF_S = 30.0
MIN_KNOCK_S, MAX_KNOCK_S = 0.2, 2.0
"""Pause between two tries at a judge that is out of reach."""


@dataclass(slots=True, kw_only=True)
class JudgeStats:
    """Counters since construction. `asked == cached + shared + verdicts + faults` when idle,
    unless a `UserError` stopped the run."""

    asked: int = 0
    cached: int = 0
    """Answered from memory, or from the cache file."""
    shared: int = 0
    """Waited for an identical question that was already on its way."""
    calls: int = 0
    """HTTP requests sent, retries included."""
    retries: int = 0
    verdicts: int = 0
    """Questions that the judge itself answered."""
    faults: int = 0
    """Questions given up on."""
    latency_s: float = 0.0
    """Sum over `verdicts`, waiting for a slot and retries included."""


class Asker:
    """One endpoint and model. Use one instance inside one event loop; `aclose()` it."""

    def __init__(
        self,
        config: JudgeConfig,
        *,
        endpoint: str | None = None,
        guided: bool = False,
        report: Report = unreported,
        store: JudgeStore | None = None,
    ) -> None:
        """As `LLMJudge`. `store` belongs to the caller, who closes it. Raises `UserError` for a
        missing or malformed endpoint."""
        url = config.endpoint or endpoint
        if url is None:
            raise UserError("rewards.judge.endpoint is not set and no own judge server was given.")
        self.stats = JudgeStats()
        self.client = ChatClient(
            url,
            key_env=config.api_key_env,
            timeout_s=config.timeout_s,
            connections=config.concurrency,
            price=config.price,
        )
        self._config = config
        self._guided = guided
        # Our own server's model changes with its environment, and its port with every start.
        self._store = store if config.endpoint else None
        self._slots = asyncio.Semaphore(config.concurrency)
        self._cache: OrderedDict[str, str] = OrderedDict()
        self._in_flight: dict[str, asyncio.Task[Reading]] = {}
        self._jitter = random.Random()
        self._outages = Outages(report)

    async def ask(
        self, messages: Sequence[Message], form: Form, version: str
    ) -> tuple[Reading, bool]:
        """The judge's reply, and whether it was remembered.

        version: of rubric and model; replies under another version are not taken.
        Raises `JudgeFault` if no usable reply came within retries and patience, `UserError` if the
        server refuses us (401, 403, 404).
        """
        self.stats.asked += 1
        key = self._key(messages, version)
        known = self._known(key, form)
        if known is not None:
            self.stats.cached += 1
            return known, True
        return await self._shared(key, messages, form), False

    async def preflight(self, form: Form) -> None:
        """Send one test request. Raises `UserError` that says what to do if it is not answered."""
        content = f"This is a connection test. {form.describe()}"
        try:
            await self.client.complete(self._body([Message(role="user", content=content)], form))
        except Unusable as error:
            raise UserError(
                f"The judge at {self.client.shown} does not answer ({error}); start it, or put "
                f"rewards.judge.endpoint and rewards.judge.model right."
            ) from error

    async def aclose(self) -> None:
        """Abandon what is in flight and close the connections."""
        tasks = list(self._in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._outages.close()
        await self.client.aclose()

    def metrics(self) -> dict[str, float]:
        """Counters as `judge/<name>`, tokens and cost included, plus `judge/mean_latency_s` over
        answered questions."""
        out = {f"judge/{name}": float(value) for name, value in asdict(self.stats).items()}
        out["judge/mean_latency_s"] = self.stats.latency_s / max(1, self.stats.verdicts)
        return out | self.client.spent.metrics()

    def _known(self, key: str, form: Form) -> Reading | None:
        text = self._cache.get(key)
        if text is not None:
            self._cache.move_to_end(key)
            return form.read(text)
        text = self._store.get(key) if self._store else None
        if text is None:
            return None
        try:
            reading = form.read(text)
        except Unusable:  # the file holds what this judge cannot have said: ask
            return None
        self._remember(key, reading.text)
        return reading

    async def _shared(self, key: str, messages: Sequence[Message], form: Form) -> Reading:
        task = self._in_flight.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, messages, form))
            self._in_flight[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        else:
            self.stats.shared += 1
        # Shielded: if one of several askers is cancelled, the others still get their verdict.
        return await asyncio.shield(task)

    def _landed(self, key: str, done: asyncio.Task[Reading]) -> None:
        del self._in_flight[key]
        if not done.cancelled():
            done.exception()  # Marks it as seen: every asker may have been cancelled.

    async def _ask(self, key: str, messages: Sequence[Message], form: Form) -> Reading:
        started = time.perf_counter()
        body = self._body(messages, form)
        attempt = 0
        while True:
            try:
                reading = await self._attempt(body, form)
                break
            except Unusable as error:
                waited_s = time.perf_counter() - started
                spent = attempt >= self._config.retries
                # Out of reach, it says nothing about this question: time decides, not tries.
                if error.away and waited_s < self._config.patience_s:
                    spent = False
                if spent or not error.retry:
                    self.stats.faults += 1
                    raise JudgeFault(
                        f"The judge at {self.client.shown} gave no usable verdict after "
                        f"{attempt + 1} attempt(s) in {waited_s:.0f} s: {error}."
                    ) from error
                self.stats.retries += 1
                pause_s = self._backoff_s(attempt, MAX_KNOCK_S if error.away else MAX_BACKOFF_S)
                if attempt >= self._config.retries:
                    pause_s = max(pause_s, MIN_KNOCK_S)
            attempt += 1
            await asyncio.sleep(pause_s)
        self.stats.verdicts += 1
        self.stats.latency_s += time.perf_counter() - started
        self._remember(key, reading.text)
        if self._store:
            self._store.put(key, reading.text)
        return reading

    async def _attempt(self, body: Mapping[str, object], form: Form) -> Reading:
        """One request. The slot is held for the request only, not while backing off."""
        async with self._slots:
            self.stats.calls += 1
            text = await self._complete(body)
        return form.read(text)

    async def _complete(self, body: Mapping[str, object]) -> str:
        name = f"judge {self.client.shown}"
        try:
            text = await self.client.complete(body)
        except Unusable as error:
            if error.away:
                self._outages.failed(name, str(error))
            raise
        self._outages.answered(name)
        return text

    def _backoff_s(self, attempt: int, most_s: float) -> float:
        delay_s: float = min(most_s, self._config.backoff_s * 2 ** min(attempt, 16))
        return delay_s * self._jitter.uniform(0.5, 1.5)

    def _remember(self, key: str, text: str) -> None:
        self._cache[key] = text
        while len(self._cache) > self._config.cache_size:
            self._cache.popitem(last=False)

    def _body(self, messages: Sequence[Message], form: Form) -> dict[str, object]:
        return {
            "model": self._config.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "temperature": 0,
            **form.request(guided=self._guided),
        }

    def _key(self, messages: Sequence[Message], version: str) -> str:
        """The endpoint is part of it: a file may hold two servers' answers under one model name."""
        rendered = [[m.role, m.content] for m in messages]
        text = json.dumps([version, self.client.shown, self._config.model, rendered])
        return hashlib.sha256(text.encode()).hexdigest()
