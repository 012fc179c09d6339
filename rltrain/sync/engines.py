"""What weight sync asks of the engines; `EngineClient` provides it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Engines(Protocol):
    """One or more engines that serve the same model. Every method raises `EngineFault`."""

    async def call(self, method: str, **kwargs: Any) -> Sequence[Sequence[Any]]:
        """Call a `WorkerExtension` method everywhere: results per engine, per worker."""
        ...

    async def wait_healthy(self) -> None:
        """Wait until every engine answers; bounded."""
        ...

    async def versions(self) -> Sequence[str]:
        """What each engine stamps its tokens with."""
        ...

    async def pause(self) -> None: ...
    async def resume(self) -> None: ...
    async def set_version(self, version: str) -> None: ...

    async def load_adapter(self, name: str, folder: str) -> None:
        """Make an adapter known under a name wherever it is not yet."""
        ...

    async def score_each(self, ids: Sequence[int]) -> Sequence[Sequence[float]]:
        """Log-probabilities (nats) of `ids[1:]`, per engine: `[E, T - 1]`."""
        ...
