"""Talks to the engines: token ids out, token ids with log-probabilities and versions back.

One request asks for all siblings of a group. Connection errors, timeouts and 5xx are retried with
backoff on the least busy engine, then become `EngineFault`; a 4xx is a bug and is not retried.
A log-probability that the engine could not give arrives as NaN, never as an exception and never
as a made-up number: the learner drops such tokens. No torch, no vLLM in here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from rltrain.errors import EngineFault
from rltrain.rollout.engine_reply import Decode, Entry, Generated, T, decode_json, finite, turn
from rltrain.types import Turn

_BACKOFF_S, _BACKOFF_MAX_S = 0.2, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Which engines are asked, and how."""

    urls: tuple[str, ...]
    """Base URLs of engines that serve the same model."""
    api_key: str
    model: str = "policy"
    """Served model name, or the adapter's name."""
    temperature: float = 1.0
    """0 is greedy."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end a turn, besides the model's own end-of-sequence token."""
    timeout_s: float = 120.0
    """Bound on one request."""
    retries: int = 3
    """Tries after the first."""


class EngineClient:
    """A `protocols.Sampler` over HTTP; also what `rltrain.sync` needs of an engine.

    Belongs to one event loop. `variant` gives a client with other sampling (greedy, an adapter)
    that shares the connections; close only the original."""

    def __init__(self, config: ClientConfig, decode: Decode) -> None:
        self.config = config
        self._decode = decode
        self._busy = dict.fromkeys(config.urls, 0)
        self._http = httpx.AsyncClient(
            headers={
                "Authorization": f"Bearer {config.api_key}",
                "Content-Type": "application/json",
            },
            timeout=config.timeout_s,
            limits=httpx.Limits(max_keepalive_connections=256, keepalive_expiry=30),
            trust_env=False,  # a proxy from the environment must not see loopback traffic
        )

    def variant(
        self, *, temperature: float | None = None, model: str | None = None
    ) -> EngineClient:
        """The same engines and connections, asked for another temperature or model name."""
        other = object.__new__(EngineClient)
        other.__dict__.update(self.__dict__)
        other.config = dataclasses.replace(
            self.config,
            temperature=self.config.temperature if temperature is None else temperature,
            model=self.config.model if model is None else model,
        )
        return other

    async def generate(
        self, prompt_ids: Sequence[int], *, n: int, seed: int | None, max_tokens: int
    ) -> tuple[Turn, ...]:
        """Sample n completions of one prompt, in a fixed order per seed.

        At temperature 0 there is one answer: it is sampled once and returned n times.
        Raises `EngineFault` after the last retry, or when the engine aborted a completion."""
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
        reply = await self._ask("/inference/v1/generate", body, Generated)
        choices = sorted(reply.choices, key=lambda choice: choice.index)
        if len(choices) != body["sampling_params"]["n"]:
            raise EngineFault(f"the engine answered {len(choices)} completions instead of {n}")
        turns = tuple(turn(tuple(prompt_ids), choice, self._decode) for choice in choices)
        return turns * n if greedy else turns

    async def score(self, ids: Sequence[int]) -> list[float]:
        """Log-probability (nats, temperature 1) of each token after the first: `[T - 1]`."""
        return await self._score(ids, None)

    async def score_each(self, ids: Sequence[int]) -> list[list[float]]:
        """`score` by every engine, in the order of `urls`."""
        return list(await asyncio.gather(*(self._score(ids, url) for url in self.config.urls)))

    async def _score(self, ids: Sequence[int], url: str | None) -> list[float]:
        params = {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0, "detokenize": False}
        body = {"model": self.config.model, "token_ids": list(ids), "sampling_params": params}
        reply = await self._ask("/inference/v1/generate", body, Generated, url=url)
        rows = (reply.prompt_logprobs or [])[1:]
        if len(rows) != len(ids) - 1:
            raise EngineFault(f"the engine scored {len(rows)} of {len(ids) - 1} tokens")
        return [
            finite((row or {}).get(str(token), Entry()).logprob)
            for token, row in zip(ids[1:], rows, strict=True)
        ]

    # What a weight sync needs: every call goes to every engine and is tried once.

    async def pause(self) -> None:
        """Freeze running requests; they go on after `resume`, recomputed under the new weights."""
        await self._each("/pause?mode=keep&clear_cache=true")

    async def resume(self) -> None:
        """Continue after `pause`; harmless where nothing is paused."""
        await self._each("/resume")

    async def set_version(self, version: str) -> None:
        """The version that tokens sampled from now on are stamped with."""
        await self._each("/update_weight_version", {"new_version": version})

    async def versions(self) -> list[str]:
        """The version that each engine stamps now; `default` before the first push."""
        replies = await self._each("/weight_info", method="GET")
        return [str(reply["weight_version"]) for reply in replies]

    async def paused(self) -> list[bool]:
        replies = await self._each("/is_paused", method="GET")
        return [bool(reply["is_paused"]) for reply in replies]

    async def call(self, method: str, **kwargs: Any) -> list[list[Any]]:
        """Call a method of the worker extension: per engine, the result of each of its workers."""
        body = {"method": method, "kwargs": kwargs, "timeout": self.config.timeout_s}
        replies = await self._each("/collective_rpc", body)
        return [list((reply or {}).get("results", [])) for reply in replies]

    async def load_adapter(self, name: str, folder: str) -> None:
        """Make a LoRA adapter known under a name, which requests then give as their model."""
        await self._each("/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder})

    async def is_healthy(self) -> bool:
        """Whether every engine answers within five seconds. Never raises."""
        try:
            async with asyncio.timeout(5):
                await self._each("/health", method="GET")
        except (EngineFault, TimeoutError):
            return False
        return True

    async def aclose(self) -> None:
        """Close the connections, those of variants included."""
        await self._http.aclose()

    async def _each(
        self, path: str, body: Mapping[str, Any] | None = None, method: str = "POST"
    ) -> list[Any]:
        # All finish before the first error is raised: no engine is left behind in mid-call.
        tasks = [self._send(url, path, body, method) for url in self.config.urls]
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        out = []
        for url, reply in zip(self.config.urls, replies, strict=True):
            if isinstance(reply, httpx.HTTPError | TimeoutError):
                raise EngineFault(
                    f"engine {url} did not answer {path} ({_name(reply)}); see its log"
                ) from reply
            if isinstance(reply, BaseException):
                raise reply
            if reply.status_code >= 300:
                raise _refused(url, path, reply)
            out.append(
                decode_json(reply.content, Any) if reply.content[:1] in (b"{", b"[") else None
            )
        return out

    async def _ask(self, path: str, body: Any, kind: type[T], url: str | None = None) -> T:
        last = ""
        tried: list[str] = []
        for attempt in range(self.config.retries + 1):
            if attempt:
                delay = min(_BACKOFF_S * 2 ** (attempt - 1), _BACKOFF_MAX_S)
                await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            # A dead engine is never busy: prefer those that this request has not tried.
            target = url or min(self._busy, key=lambda u: (tried.count(u), self._busy[u]))
            tried.append(target)
            self._busy[target] += 1
            try:
                reply = await self._send(target, path, body)
            except (httpx.TransportError, TimeoutError) as error:
                last = f"{target}: {_name(error)}"
                continue
            finally:
                self._busy[target] -= 1
            if reply.status_code == 200:
                return decode_json(reply.content, kind)
            if reply.status_code < 500 and reply.status_code not in (408, 429):
                raise _refused(target, path, reply)
            last = f"{target}: {_refused(target, path, reply)}"
        raise EngineFault(
            f"no engine answered after {self.config.retries + 1} tries (last: {last}); "
            "see the engine's log"
        )

    async def _send(
        self, url: str, path: str, body: Any = None, method: str = "POST"
    ) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        async with asyncio.timeout(self.config.timeout_s):
            return await self._http.request(method, url + path, content=content)


def _name(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _refused(url: str, path: str, reply: httpx.Response) -> EngineFault:
    detail = " ".join(reply.text.split())[:300]
    return EngineFault(f"engine {url} answered {path} with {reply.status_code}: {detail}")
