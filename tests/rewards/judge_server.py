"""A real HTTP server on a free loopback port that misbehaves as it is told to."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass
class Load:
    """Requests being answered now, and at most so far."""

    now: int = 0
    most: int = 0


class JudgeServer:
    """Answers each request with the next behaviour, the last one for ever.

    A behaviour is a word to answer, or `status:500`, `raw:<body>`, `slow:<seconds>:<word>`,
    `hang`, `drip` (a byte now and then), `echo` (403 quoting the API key) or `cut` (no body).
    """

    def __init__(self) -> None:
        self.behaviours: list[str] = ["yes"]
        self.decide: Callable[[dict[str, Any]], str] | None = None
        """Chooses the behaviour by the request, in place of the list."""
        self.usage: object = None
        """The reply's usage block; None leaves it out."""
        self.requests: list[dict[str, Any]] = []
        self.authorization: list[str] = []
        self.load = Load()
        self.endpoint = ""

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.authorization.append(headers.get("authorization", ""))
        self.requests.append(json.loads(body) | {"path": scope["path"]})
        if self.decide is not None:
            behaviour = self.decide(self.requests[-1])
        else:
            behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        load = self.load  # A request that hangs beyond its test must not count in the next one.
        load.now += 1
        load.most = max(load.most, load.now)
        try:
            await self._answer(behaviour, headers, send)
        finally:
            load.now -= 1

    async def _answer(self, behaviour: str, headers: dict[str, str], send: Send) -> None:
        kind, _, rest = behaviour.partition(":")
        status, text = 200, behaviour
        if kind == "slow":
            delay, _, text = rest.partition(":")
            await asyncio.sleep(float(delay))
        elif kind == "hang":
            await asyncio.sleep(30)
        elif kind == "drip":
            await self._drip(send)
            return
        elif kind == "cut":
            raise RuntimeError("the connection ends without a reply")
        reply: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}}]}
        if self.usage is not None:
            reply["usage"] = self.usage
        body = json.dumps(reply)
        if kind == "raw":
            body = rest
        elif kind == "status":
            status, body = int(rest), '{"error": "no model of that name"}'
        elif kind == "echo":
            status, body = 403, f"bad key {headers.get('authorization')}"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})

    async def _drip(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(100):
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(port: int = 0) -> Iterator[JudgeServer]:
    """The server in a thread, listening before the block begins and gone after it."""
    app = JudgeServer()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    app.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", timeout_graceful_shutdown=0, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield app
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listener.close()
