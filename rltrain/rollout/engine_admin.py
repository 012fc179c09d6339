"""Calls that go to every engine: what a weight sync needs, versions and health. Each is tried once;
who needs more starts over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from rltrain.errors import EngineFault
from rltrain.outage import Outages, Report, unreported
from rltrain.rollout.engine_reply import decode_json

_HEALTH_S = 5.0
_POLL_S = 0.5


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
    patience_s: float = 0.0
    """How long a request waits for engines that are out of reach or serve no proven weights. Such
    waiting is not a try; with 0 it is."""
    initial: bool = True
    """Whether tokens count that an engine sampled before its first push (as version 0). In training
    they do not: an engine that was started anew has the initial weights again."""


class EngineAdmin:
    """The connections to all engines, and the calls that go to each of them."""

    def __init__(self, config: ClientConfig, report: Report = unreported) -> None:
        self.config = config
        self._outages = Outages(report)
        self._http = httpx.AsyncClient(
            headers={
                "Authorization": f"Bearer {config.api_key}",
                "Content-Type": "application/json",
            },
            timeout=config.timeout_s,
            limits=httpx.Limits(max_keepalive_connections=256, keepalive_expiry=30),
            trust_env=False,  # a proxy from the environment must not see loopback traffic
        )

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
        """Make a LoRA adapter known under a name, which requests then give as their model; nothing
        is done where the name is known already."""
        body = {"lora_name": name, "lora_path": folder}
        for url in self.config.urls:
            (models,) = await self._each("/v1/models", method="GET", urls=(url,))
            if name not in {model["id"] for model in models["data"]}:
                await self._each("/v1/load_lora_adapter", body, urls=(url,))

    async def is_healthy(self) -> bool:
        """Whether every engine answers within five seconds. Never raises."""
        return not await self._silent()

    async def wait_healthy(self) -> None:
        """Wait until every engine answers. Raises `EngineFault` after `patience_s`."""
        deadline = time.monotonic() + self.config.patience_s
        while True:
            silent = await self._silent()
            for url in self.config.urls:
                if url in silent:
                    self._outages.failed(f"engine {url}", "it does not answer /health")
                else:
                    self._outages.answered(f"engine {url}")
            if not silent:
                return
            if time.monotonic() > deadline:
                raise EngineFault(
                    f"engine {silent[0]} was out of reach for rollout.patience_s="
                    f"{self.config.patience_s:g} s; see its log"
                )
            await asyncio.sleep(_POLL_S)

    async def aclose(self) -> None:
        """Close the connections, those of variants included."""
        self._outages.close()
        await self._http.aclose()

    async def _silent(self) -> list[str]:
        urls = self.config.urls
        answers = await asyncio.gather(*(self._answers(url) for url in urls))
        return [url for url, answered in zip(urls, answers, strict=True) if not answered]

    async def _answers(self, url: str) -> bool:
        try:
            async with asyncio.timeout(_HEALTH_S):
                await self._each("/health", method="GET", urls=(url,))
        except (EngineFault, TimeoutError):
            return False
        return True

    async def _each(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        method: str = "POST",
        urls: tuple[str, ...] = (),
    ) -> list[Any]:
        # All finish before the first error is raised: no engine is left behind in mid-call.
        urls = urls or self.config.urls
        tasks = [self._send(url, path, body, method) for url in urls]
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        out = []
        for url, reply in zip(urls, replies, strict=True):
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
