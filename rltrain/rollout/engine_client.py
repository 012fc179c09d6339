"""Talks to the engines: token ids out, token ids with log-probabilities and versions back.

One request asks for all siblings of a group. Timeouts and 5xx are retried with backoff on the least
busy engine, then become `EngineFault`; a 4xx is a bug and is not retried. An engine that is out of
reach, or that answers from weights nobody proved, is waited for up to `patience_s` before that.
A log-probability that the engine could not give arrives as NaN, never as an exception and never
as a made-up number: the learner drops such tokens. No torch, no vLLM in here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from collections.abc import Sequence
from typing import Any

import httpx

from rltrain.errors import EngineFault
from rltrain.outage import Report, unreported
from rltrain.rollout.engine_admin import ClientConfig, EngineAdmin, _name, _refused
from rltrain.rollout.engine_fleet import Fleet
from rltrain.rollout.engine_reply import (
    ENDED,
    Decode,
    Entry,
    Generated,
    decode_json,
    finite,
    is_proven,
    turn,
)
from rltrain.types import Turn

__all__ = ["ClientConfig", "EngineClient"]

_BACKOFF_S, _BACKOFF_MAX_S = 0.2, 5.0
_GENERATE = "/inference/v1/generate"


class _Again(Exception):
    """This try failed; another may not."""


class _Away(_Again):
    """The engine is out of reach or has no proven weights; waiting may cure it."""


class EngineClient(EngineAdmin):
    """A `protocols.Sampler` over HTTP; also what `rltrain.sync` needs of an engine.

    Belongs to one event loop. `variant` gives a client with other sampling (greedy, an adapter)
    that shares the connections; close only the original."""

    def __init__(self, config: ClientConfig, decode: Decode, report: Report = unreported) -> None:
        """report: told when an engine has been out of reach for a second, and when it is back."""
        super().__init__(config, report)
        self._decode = decode
        self._fleet = Fleet(config.urls, self._ready, self._outages)
        self._fleets = [self._fleet]

    def variant(
        self,
        *,
        temperature: float | None = None,
        model: str | None = None,
        initial: bool | None = None,
    ) -> EngineClient:
        """The same engines and connections, asked for another temperature or model name, or with
        another answer to whether initial weights count."""
        other = object.__new__(EngineClient)
        other.__dict__.update(self.__dict__)
        changes = {"temperature": temperature, "model": model, "initial": initial}
        given = {key: value for key, value in changes.items() if value is not None}
        other.config = dataclasses.replace(self.config, **given)  # type: ignore[arg-type]
        if initial is not None:  # another idea of when an engine is ready
            other._fleet = Fleet(self.config.urls, other._ready, self._outages)
            self._fleets.append(other._fleet)
        return other

    async def generate(
        self, prompt_ids: Sequence[int], *, n: int, seed: int | None, max_tokens: int
    ) -> tuple[Turn, ...]:
        """Sample n completions of one prompt, in a fixed order per seed.

        At temperature 0 there is one answer: it is sampled once and returned n times.
        Raises `EngineFault` once tries and patience are spent."""
        greedy = self.config.temperature == 0
        body: dict[str, Any] = {
            "model": self.config.model,
            "token_ids": list(prompt_ids),
            "sampling_params": {
                "n": 1 if greedy else n,
                "seed": seed,
                "max_tokens": max_tokens,
                "temperature": self.config.temperature,
                "stop_token_ids": list(self.config.stop_ids),
                "logprobs": 0,
                "detokenize": False,
            },
        }
        reply = await self._ask(body, self.config.urls, self.config.patience_s)
        choices = sorted(reply.choices, key=lambda choice: choice.index)
        if len(choices) != body["sampling_params"]["n"]:
            raise EngineFault(f"the engine answered {len(choices)} completions instead of {n}")
        turns = tuple(turn(tuple(prompt_ids), choice, self._decode) for choice in choices)
        return turns * n if greedy else turns

    async def score(self, ids: Sequence[int]) -> list[float]:
        """Log-probability (nats, temperature 1) of each token after the first: `[T - 1]`."""
        return await self._score(ids, self.config.urls)

    async def score_each(self, ids: Sequence[int]) -> list[list[float]]:
        """`score` by every engine, in the order of `urls`."""
        return list(await asyncio.gather(*(self._score(ids, (url,)) for url in self.config.urls)))

    async def aclose(self) -> None:
        """Close the connections, those of variants included."""
        for fleet in self._fleets:
            await fleet.aclose()
        await super().aclose()

    async def _score(self, ids: Sequence[int], urls: Sequence[str]) -> list[float]:
        # Without patience: whoever compares weights must start over if the engine was away.
        params = {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0, "detokenize": False}
        body = {"model": self.config.model, "token_ids": list(ids), "sampling_params": params}
        reply = await self._ask(body, urls, 0.0)
        rows = (reply.prompt_logprobs or [])[1:]
        if len(rows) != len(ids) - 1:
            raise EngineFault(f"the engine scored {len(rows)} of {len(ids) - 1} tokens")
        return [
            finite((row or {}).get(str(token), Entry()).logprob)
            for token, row in zip(ids[1:], rows, strict=True)
        ]

    async def _ask(self, body: Any, urls: Sequence[str], patience_s: float) -> Generated:
        """One answer from one of the engines. What only waiting cures is not a try, but all such
        waits of one request together are bounded by `patience_s`."""
        last, tries, waited_s = "", 0, 0.0
        tried: list[str] = []
        while tries <= self.config.retries and waited_s <= patience_s:
            target = self._fleet.pick(urls, tried) if patience_s else self._least_tried(urls, tried)
            if target is None:
                waited_s += await self._wait(urls, patience_s - waited_s)
                continue
            tried.append(target)
            try:
                return await self._attempt(target, body)
            except _Again as error:
                last = f"{target}: {error}"
                if isinstance(error, _Away) and patience_s:
                    self._fleet.away(target, str(error))
                    continue
            tries += 1
            if tries <= self.config.retries:
                delay_s = min(_BACKOFF_S * 2 ** (tries - 1), _BACKOFF_MAX_S)
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))
        after = f"{tries} tries" if tries > self.config.retries else f"{waited_s:.0f} s"
        raise EngineFault(f"no engine answered after {after} (last: {last}); see the engine's log")

    def _least_tried(self, urls: Sequence[str], tried: Sequence[str]) -> str:
        # A dead engine is never busy: prefer those that this request has not tried.
        return min(urls, key=lambda url: (tried.count(url), self._fleet.busy[url]))

    async def _wait(self, urls: Sequence[str], timeout_s: float) -> float:
        started = time.monotonic()
        await self._fleet.wait(urls, timeout_s)
        return time.monotonic() - started

    async def _attempt(self, url: str, body: Any) -> Generated:
        """Raises `_Away`, `_Again`, or `EngineFault` for what neither waiting nor trying cures."""
        self._fleet.busy[url] += 1
        try:
            reply = await self._send(url, _GENERATE, body)
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout) as error:
            raise _Again(_name(error)) from error
        except httpx.TransportError as error:
            raise _Away(_name(error)) from error
        finally:
            self._fleet.busy[url] -= 1
        if reply.status_code == 200:
            return await self._accept(url, decode_json(reply.content, Generated))
        fault = _refused(url, _GENERATE, reply)
        passing = reply.status_code >= 500 or reply.status_code in (408, 429)
        # An engine that is going down answers 5xx; one that was started anew knows no adapter: 404.
        if not await self._ready(url):
            raise _Away(str(fault))
        if passing:
            raise _Again(str(fault))
        raise fault

    async def _accept(self, url: str, answer: Generated) -> Generated:
        if not self.config.initial and not all(map(is_proven, answer.choices)):
            raise _Away("it has no proven weights yet")
        broken = [c.finish_reason for c in answer.choices if c.finish_reason not in ENDED]
        if broken:  # aborted by an engine that is shutting down, or by somebody
            text = f"it ended a completion with {broken[0]!r} instead of stop or length"
            raise _Again(text) if await self._ready(url) else _Away(text)
        return answer

    async def _ready(self, url: str) -> bool:
        """Whether an engine answers and, where initial weights do not count, has had its push."""
        if not await self._answers(url):
            return False
        if self.config.initial:
            return True
        try:
            (info,) = await self._each("/weight_info", method="GET", urls=(url,))
        except EngineFault:
            return False
        return str(info["weight_version"]).isdecimal()
