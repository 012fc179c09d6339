"""The real worker against a bare socket: it collects what it is given and reports its bugs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import zmq
import zmq.asyncio

from rltrain.rollout import wire
from rltrain.rollout.worker import Worker
from rltrain.types import Group, Task
from tests.makers import make_group, make_task

Learner = Callable[[zmq.asyncio.Socket], Awaitable[None]]


class FakeCollector:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def group(self, lease: int, task: Task, samples: int, seed: int) -> Group:
        if self.error:
            raise self.error
        await asyncio.sleep(0.02 if lease == 0 else 0)
        return make_group([1.0] * samples, lease=lease)


async def receive(socket: zmq.asyncio.Socket) -> wire.ToLearner:
    identity, payload = await asyncio.wait_for(socket.recv_multipart(), timeout=10)
    assert identity == b"worker-3"
    return wire.decode_to_learner(payload)


async def send(socket: zmq.asyncio.Socket, message: wire.ToWorker) -> None:
    await socket.send_multipart([b"worker-3", wire.encode(message)])


def serve(collector: FakeCollector, learner: Learner) -> None:
    async def both() -> None:
        with tempfile.TemporaryDirectory() as folder:
            socket = zmq.asyncio.Context.instance().socket(zmq.ROUTER)
            socket.bind(f"ipc://{folder}/queue")
            fake: Any = collector
            worker = Worker(f"ipc://{folder}/queue", "worker-3", fake, lambda: {"calls": 2.0})
            running = asyncio.create_task(worker.run(concurrency=2))
            try:
                await learner(socket)
                await asyncio.wait_for(running, timeout=10)
            finally:
                running.cancel()
                socket.close(linger=0)

    asyncio.run(both())


def lease(number: int) -> wire.Lease:
    return wire.Lease(lease=number, task=make_task(number), samples=2, seed=number)


def test_groups_are_collected_side_by_side_and_each_makes_room_for_another() -> None:
    async def learner(socket: zmq.asyncio.Socket) -> None:
        assert await receive(socket) == wire.Alive(capacity=2, holding=())
        await send(socket, lease(0))
        await send(socket, lease(1))
        answers = [await receive(socket) for _ in range(4)]
        groups = [a.group.lease for a in answers if isinstance(a, wire.Done)]
        assert groups == [1, 0]  # the quick one did not wait for the slow one
        assert [a.holding for a in answers if isinstance(a, wire.Alive)] == [(0,), ()]
        assert all(a.counters == {"calls": 2.0} for a in answers if isinstance(a, wire.Done))
        await send(socket, wire.Stop())

    serve(FakeCollector(), learner)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_bug_is_reported_to_the_learner_by_its_name() -> None:
    async def learner(socket: zmq.asyncio.Socket) -> None:
        await receive(socket)
        await send(socket, lease(0))
        assert await receive(socket) == wire.Broken(reason="KeyError: 'gold'")
        await send(socket, wire.Stop())

    serve(FakeCollector(KeyError("gold")), learner)
