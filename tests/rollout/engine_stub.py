"""A real HTTP server that answers like an engine, can be taken away, and comes back forgetful."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

Send = Callable[[dict[str, Any]], Awaitable[None]]


class EngineStub:
    """Listens on one port for all its life, while it is `up()`."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.version = "default"
        self.models = {"policy"}
        self.asked = 0
        self.status = 200
        """Of every generation."""
        self.finish = "stop"
        self.healthy = True

    def up(self) -> None:
        config = uvicorn.Config(
            self, host="127.0.0.1", port=self.port, log_level="critical", lifespan="off",
            ws="none", timeout_graceful_shutdown=0,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def down(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        status, reply = self._answer(scope["path"], body)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(reply).encode()})

    def _answer(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/health":
            return (200 if self.healthy else 503), {}
        if path == "/weight_info":
            return 200, {"weight_version": self.version}
        self.asked += 1
        if json.loads(body)["model"] not in self.models:
            return 404, {"error": "no such model"}
        choice = {
            "token_ids": [1, 2], "finish_reason": self.finish, "index": 0,
            "weight_versions": [{"version": self.version, "start": 0, "end": 2}],
        }  # fmt: skip
        return self.status, {"choices": [choice]}
