"""An LLM judge over the OpenAI-compatible protocol, whose every answer is a verdict or a fault.

    (task, canonical) -> prompt -> cache? -> in flight? -> POST /chat/completions -> one of verdicts

The judge reads the environment's prompt over the *canonical* answer: what the policy wrote never
reaches it, so there is nothing to inject into. A judge that is down, slow, or answers anything but
one of the configured words raises `JudgeFault`; the sibling is dropped and counted, never scored 0.
Before that, a judge that is out of reach is waited for up to `patience_s`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from rltrain.config.rewards import JudgeConfig
from rltrain.errors import JudgeFault, UserError
from rltrain.outage import Outages, Report, unreported
from rltrain.rewards.chat import ChatClient, Unusable
from rltrain.types import Message, Task, Verdict

Prompt = Callable[[Task, str], Sequence[Message]]

MAX_TOKENS = 16
"""Enough for one word; a longer answer is not a verdict."""
MAX_BACKOFF_S = 30.0
MIN_KNOCK_S, MAX_KNOCK_S = 0.2, 2.0
"""Pause between two tries at a judge that is out of reach."""


@dataclass(slots=True, kw_only=True)
class JudgeStats:
    """Counters since construction. `asked == cached + shared + verdicts + faults` when idle,
    unless a `UserError` stopped the run."""

    asked: int = 0
    cached: int = 0
    """Answered from memory."""
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


def _check_verdicts(verdicts: Mapping[str, float]) -> None:
    bad = {word: score for word, score in verdicts.items() if not 0.0 <= score <= 1.0}
    blank = [word for word in verdicts if not word or word != word.strip()]
    if not verdicts or bad or blank:
        raise UserError(
            "rewards.judge.verdicts must map words without surrounding spaces to scores in "
            f"[0, 1]; got {verdicts!r}."
        )


class LLMJudge:
    """A `Check` over canonical answers. Use one instance inside one event loop; `aclose()` it."""

    def __init__(
        self,
        config: JudgeConfig,
        prompt: Prompt,
        *,
        endpoint: str | None = None,
        guided: bool = False,
        report: Report = unreported,
    ) -> None:
        """
        Args:
            config: the judge's section of the config.
            prompt: `environment.judge_prompt`.
            endpoint: base URL ending in /v1; needed if the config names none (own server).
            guided: ask the server to decode one of the verdicts only (vLLM's
                `structured_outputs`). The answer is validated here in either case.
            report: told when the judge has been out of reach for a second, and when it is back.

        Raises `UserError` for a missing or malformed endpoint or impossible verdicts.
        """
        url = config.endpoint or endpoint
        if url is None:
            raise UserError("rewards.judge.endpoint is not set and no own judge server was given.")
        _check_verdicts(config.verdicts)
        self.version = config.version
        self.stats = JudgeStats()
        self._config = config
        self._prompt = prompt
        self._guided = guided
        self._client = ChatClient(
            url,
            key_env=config.api_key_env,
            timeout_s=config.timeout_s,
            connections=config.concurrency,
        )
        self._slots = asyncio.Semaphore(config.concurrency)
        self._cache: OrderedDict[str, str] = OrderedDict()
        self._in_flight: dict[str, asyncio.Task[str]] = {}
        self._jitter = random.Random()
        self._outages = Outages(report)

    def __repr__(self) -> str:
        return f"LLMJudge(endpoint={self._client.shown!r}, model={self._config.model!r})"

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Judge a canonical answer.

        Raises `JudgeFault` if no usable verdict came within retries and patience, `UserError` if
        the server refuses us (401, 403, 404).
        """
        assert answer is not None, "the judge must not be asked about an answer that does not parse"
        started = time.perf_counter()
        messages = self._prompt(task, answer)
        key = self._key(messages)
        self.stats.asked += 1
        word, cached = self._cache.get(key), True
        if word is None:
            cached = False
            word = await self._shared(key, messages)
        else:
            self._cache.move_to_end(key)
            self.stats.cached += 1
        score = self._config.verdicts[word]
        return Verdict(
            gate="judge",
            passed=score >= self._config.pass_at,
            score=score,
            reason=f"verdict: {word}",
            wall_s=time.perf_counter() - started,
            version=self.version,
            cached=cached,
        )

    async def preflight(self) -> None:
        """Send one test request. Raises `UserError` that says what to do if it is not answered."""
        words = ", ".join(self._config.verdicts)
        content = f"This is a connection test. Answer with exactly one of: {words}."
        try:
            await self._client.complete(self._body([Message(role="user", content=content)]))
        except Unusable as error:
            raise UserError(
                f"The judge at {self._client.shown} does not answer ({error}); start it, or put "
                f"rewards.judge.endpoint and rewards.judge.model right."
            ) from error

    async def aclose(self) -> None:
        """Abandon what is in flight and close the connections."""
        tasks = list(self._in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._outages.close()
        await self._client.aclose()

    def metrics(self) -> dict[str, float]:
        """Counters as `judge/<name>`, plus `judge/mean_latency_s` over answered questions."""
        out = {f"judge/{name}": float(value) for name, value in asdict(self.stats).items()}
        out["judge/mean_latency_s"] = self.stats.latency_s / max(1, self.stats.verdicts)
        return out

    async def _shared(self, key: str, messages: Sequence[Message]) -> str:
        task = self._in_flight.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, messages))
            self._in_flight[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        else:
            self.stats.shared += 1
        # Shielded: if one of several askers is cancelled, the others still get their verdict.
        return await asyncio.shield(task)

    def _landed(self, key: str, done: asyncio.Task[str]) -> None:
        del self._in_flight[key]
        if not done.cancelled():
            done.exception()  # Marks it as seen: every asker may have been cancelled.

    async def _ask(self, key: str, messages: Sequence[Message]) -> str:
        started = time.perf_counter()
        body = self._body(messages)
        attempt = 0
        while True:
            try:
                word = await self._attempt(body)
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
                        f"The judge at {self._client.shown} gave no usable verdict after "
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
        self._remember(key, word)
        return word

    async def _attempt(self, body: Mapping[str, object]) -> str:
        """One request. The slot is held for the request only, not while backing off."""
        async with self._slots:
            self.stats.calls += 1
            text = await self._complete(body)
        word = text.strip()
        if word not in self._config.verdicts:
            raise Unusable(
                f"it answered {word[:60]!r} instead of one of {list(self._config.verdicts)}"
            )
        return word

    async def _complete(self, body: Mapping[str, object]) -> str:
        name = f"judge {self._client.shown}"
        try:
            text = await self._client.complete(body)
        except Unusable as error:
            if error.away:
                self._outages.failed(name, str(error))
            raise
        self._outages.answered(name)
        return text

    def _backoff_s(self, attempt: int, most_s: float) -> float:
        delay_s: float = min(most_s, self._config.backoff_s * 2 ** min(attempt, 16))
        return delay_s * self._jitter.uniform(0.5, 1.5)

    def _remember(self, key: str, word: str) -> None:
        self._cache[key] = word
        while len(self._cache) > self._config.cache_size:
            self._cache.popitem(last=False)

    def _body(self, messages: Sequence[Message]) -> dict[str, object]:
        body: dict[str, object] = {
            "model": self._config.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "temperature": 0,
            "max_tokens": max([MAX_TOKENS, *map(len, self._config.verdicts)]),
        }
        if self._guided:
            body["structured_outputs"] = {"choice": list(self._config.verdicts)}
        return body

    def _key(self, messages: Sequence[Message]) -> str:
        rendered = [[m.role, m.content] for m in messages]
        text = json.dumps([self.version, self._config.model, rendered])
        return hashlib.sha256(text.encode()).hexdigest()
