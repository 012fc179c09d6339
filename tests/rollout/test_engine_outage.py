"""An engine that is away is waited for; what it says without proven weights does not count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from rltrain.errors import EngineFault
from rltrain.rollout.engine_client import ClientConfig, EngineClient
from rltrain.types import Turn
from tests.rollout.engine_stub import EngineStub

Events = list[tuple[str, str]]


@pytest.fixture
def engine() -> Iterator[EngineStub]:
    with ExitStack() as stack:
        stub = EngineStub()
        stub.up()
        stack.callback(lambda: stub.down())
        yield stub


def use(
    what: Callable[[EngineClient], Awaitable[Any]],
    *engines: EngineStub,
    events: Events | None = None,
    **changes: Any,
) -> Any:
    settings = {"api_key": "k", "retries": 1, "patience_s": 20.0, "initial": False, **changes}
    urls = tuple(each.url for each in engines)
    seen: Events = [] if events is None else events

    async def run() -> Any:
        client = EngineClient(
            ClientConfig(urls=urls, **settings), lambda ids: "text",
            lambda kind, text: seen.append((kind, text)),
        )  # fmt: skip
        try:
            async with asyncio.timeout(60):
                return await what(client)
        finally:
            await client.aclose()

    return asyncio.run(run())


async def ask(client: EngineClient) -> Turn:
    return (await client.generate([7], n=1, seed=0, max_tokens=2))[0]


async def later(seconds: float, change: Callable[[], None]) -> None:
    await asyncio.sleep(seconds)
    await asyncio.to_thread(change)


def test_an_engine_that_comes_back_and_gets_its_push_loses_no_request(engine: EngineStub) -> None:
    """As after a kill: refused connections, then initial weights, then the push."""
    engine.version = "4"
    events: Events = []

    async def run(client: EngineClient) -> list[Turn]:
        await ask(client)
        await asyncio.to_thread(engine.down)
        engine.version = "default"
        asked = asyncio.gather(*(ask(client) for _ in range(12)))
        await later(1.2, engine.up)
        await asyncio.sleep(0.8)
        assert not asked.done() and engine.asked == 1, "nobody samples from unproven weights"
        engine.version = "5"
        return await asked

    assert {turn.version for turn in use(run, engine, events=events)} == {5}
    assert engine.asked == 13, "one request each: waiting is not trying"
    assert [kind for kind, _ in events] == ["outage", "outage_over"]
    assert engine.url in events[0][1] and "answers again after" in events[1][1]


def test_a_turn_from_initial_weights_is_asked_again_after_the_push(engine: EngineStub) -> None:
    async def run(client: EngineClient) -> Turn:
        asked = asyncio.create_task(ask(client))
        await asyncio.sleep(0.3)
        assert not asked.done()
        engine.version = "1"
        return await asked

    assert use(run, engine).version == 1 and engine.asked == 2


def test_where_initial_weights_count_they_are_version_0(engine: EngineStub) -> None:
    async def run(client: EngineClient) -> int:
        return (await ask(client.variant(initial=True))).version

    assert use(run, engine) == 0


def test_an_engine_started_anew_that_knows_no_adapter_is_waited_for(engine: EngineStub) -> None:
    async def run(client: EngineClient) -> Turn:
        asked = asyncio.create_task(ask(client))
        await asyncio.sleep(0.3)
        engine.models.add("adapter")
        engine.version = "1"
        return await asked

    assert use(run, engine, model="adapter").version == 1


def test_a_bad_request_to_a_good_engine_is_a_fault_at_once(engine: EngineStub) -> None:
    engine.version = "1"
    with pytest.raises(EngineFault, match="404"):
        use(ask, engine, model="nobody")
    assert engine.asked == 1


def test_a_good_engine_that_fails_again_and_again_is_not_waited_for(engine: EngineStub) -> None:
    engine.version, engine.status = "1", 500
    with pytest.raises(EngineFault, match=r"after 2 tries .*500"):
        use(ask, engine)
    assert engine.asked == 2


def test_an_engine_that_goes_down_while_it_answers_is_waited_for(engine: EngineStub) -> None:
    engine.version, engine.status, engine.healthy = "1", 500, False

    async def run(client: EngineClient) -> Turn:
        asked = asyncio.create_task(ask(client))
        await asyncio.sleep(0.5)
        engine.status, engine.healthy = 200, True
        return await asked

    assert use(run, engine, retries=0).version == 1


def test_an_aborted_completion_is_asked_again(engine: EngineStub) -> None:
    engine.version, engine.finish = "1", "abort"

    async def run(client: EngineClient) -> Turn:
        asked = asyncio.create_task(ask(client))
        while not engine.asked:
            await asyncio.sleep(0.01)
        engine.finish = "stop"
        return await asked

    assert use(run, engine, retries=5).stop_reason == "stop"


def test_patience_ends(engine: EngineStub) -> None:
    engine.down()
    with pytest.raises(EngineFault, match=r"no engine answered after 1 s .*Connect"):
        use(ask, engine, patience_s=0.6)
    engine.up()


def test_with_several_engines_those_alive_are_asked(engine: EngineStub) -> None:
    dead = EngineStub()
    engine.version = "1"

    async def run(client: EngineClient) -> list[Turn]:
        return await asyncio.gather(*(ask(client) for _ in range(8)))

    assert len(use(run, dead, engine)) == 8 and engine.asked == 8
