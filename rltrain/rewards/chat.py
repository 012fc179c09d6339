"""One chat completion over HTTP: the text of the answer, or a plain sentence why there is none.

The API key lives in the client's headers only. No exception text here contains it: what a server
says back is shown only where it cannot echo the key, and with the key struck out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import httpx

from rltrain.config.judge import PriceConfig
from rltrain.errors import UserError
from rltrain.rewards.judge_cost import Spending, usage_of

REFUSED = {
    401: "it refused the API key",
    403: "it forbids this API key",
    404: "it does not know this address or model",
}
"""Statuses that no retry can cure."""
PASSING = frozenset({408, 409, 425, 429})
"""Client errors that a retry can cure, beside every 5xx."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Unusable(Exception):
    """No usable answer this time. Internal: becomes `JudgeFault` once retries are spent."""

    def __init__(self, cause: str, *, retry: bool = True, away: bool = False) -> None:
        super().__init__(cause)
        self.retry = retry
        """Whether asking again can help."""
        self.away = away
        """Whether the service is out of reach, overloaded or starting: waiting can help."""


class ChatClient:
    """POST {endpoint}/chat/completions with a deadline per request."""

    def __init__(
        self,
        endpoint: str,
        *,
        key_env: str,
        timeout_s: float,
        connections: int,
        price: PriceConfig | None = None,
    ) -> None:
        """Raises `UserError` for a malformed endpoint or an API key that no header can carry."""
        try:
            url = httpx.URL(endpoint.rstrip("/"))
        except httpx.InvalidURL:
            # Not quoted: what is wrong with it may be a password that somebody put there.
            raise UserError(
                "rewards.judge.endpoint is not a URL; write http://host:8000/v1."
            ) from None
        if url.userinfo:
            # It would also override the API key's header.
            raise UserError(
                f"rewards.judge.endpoint must not contain a user or password; put the key into the "
                f"environment variable {key_env}."
            )
        if url.scheme not in ("http", "https") or not url.host:
            raise UserError("rewards.judge.endpoint must be a URL such as http://host:8000/v1.")
        self.shown = str(url.copy_with(query=None, fragment=None))
        """The endpoint as it may be logged: a query may hold a token."""
        self.spent = Spending(price=price)
        self._url = url.copy_with(path=url.path.rstrip("/") + "/chat/completions")
        self._key_env = key_env
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            headers=_auth_header(key_env),
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=connections),
            # A proxy for the outside world must not stand between us and our own machine.
            trust_env=url.host not in LOOPBACK,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def complete(self, body: Mapping[str, object]) -> str:
        """The first choice's text, as sent.

        Raises `Unusable` with the cause, or `UserError` for 401, 403 and 404.
        """
        try:
            # httpx limits each phase; a server that drips one byte a second needs a deadline too.
            async with asyncio.timeout(self._timeout_s):
                response = await self._http.post(self._url, json=body)
        except (TimeoutError, httpx.TimeoutException):
            self.spent.add(None)  # it may have been worked on
            raise Unusable(f"no answer within {self._timeout_s:g} s", away=True) from None
        except httpx.ConnectError as error:
            raise Unusable(f"connection failed ({error})", away=True) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.spent.add(None)
            away = isinstance(error, httpx.TransportError)
            raise Unusable(f"{type(error).__name__} ({error})", away=away) from None
        self._require_ok(response)
        reply = _parsed(response)
        self.spent.add(usage_of(reply))
        return _content(reply)

    def _require_ok(self, response: httpx.Response) -> None:
        status = response.status_code
        if response.is_success:
            return
        if status in REFUSED:
            # The body is left out of 401 and 403: servers like to quote the key there.
            detail = f": {self._body(response)}" if status == 404 else ""
            raise UserError(
                f"The judge at {self.shown} answered HTTP {status}: {REFUSED[status]}{detail}. "
                f"Check {self._key_env}, rewards.judge.endpoint and rewards.judge.model."
            )
        if status >= 500 or status in PASSING:
            raise Unusable(f"HTTP {status}", away=True)
        raise Unusable(f"HTTP {status}: {self._body(response)}", retry=False)

    def _body(self, response: httpx.Response) -> str:
        key = _read_key(self._key_env)
        text = response.text.replace(key, "***") if key else response.text
        return " ".join(text.split())[:200]


def _parsed(response: httpx.Response) -> Any:
    """The reply's JSON; None for what is none."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _content(reply: Any) -> str:
    """`choices[0].message.content`; anything else is `Unusable`."""
    try:
        content = reply["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        raise Unusable("its reply is not a chat completion") from None
    if not isinstance(content, str) or not content.strip():
        raise Unusable("its reply is empty")
    return content


def _read_key(key_env: str) -> str:
    return os.environ.get(key_env, "").strip()


def _auth_header(key_env: str) -> dict[str, str]:
    key = _read_key(key_env)
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{key_env} holds characters that no HTTP header can carry.")
    return {"Authorization": f"Bearer {key}"}
