"""A rollout worker: an asyncio process that keeps many groups in flight at once.

Never run by hand: `rltrain train` starts it and gives it its place in the run through
`build.worker`. It imports no torch of its own and owns no GPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq
import zmq.asyncio

from rltrain.rollout import wire
from rltrain.rollout.collect import Collector

PULSE_S = 1.0


class Worker:
    """Says what it holds, collects the groups of its leases, returns them; ends on `Stop`."""

    def __init__(
        self,
        address: str,
        name: str,
        collector: Collector,
        counters: Callable[[], dict[str, float]],
    ) -> None:
        self.collector = collector
        self.counters = counters
        self._socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, name.encode())
        self._socket.connect(address)
        self._capacity = 0
        self._running: dict[int, asyncio.Task[None]] = {}

    async def run(self, concurrency: int) -> None:
        """Serve until told to stop. A bug (any exception that is not a system fault) is reported
        to the learner, which stops the run, and then raised."""
        self._capacity = concurrency
        pulse = asyncio.create_task(self._pulse())
        try:
            while True:
                message = wire.decode_to_worker(await self._socket.recv())
                if isinstance(message, wire.Stop):
                    return
                if message.lease not in self._running:
                    self._running[message.lease] = asyncio.create_task(self._collect(message))
        finally:
            for job in (pulse, *self._running.values()):
                job.cancel()
            self._socket.close(linger=1000)

    async def _pulse(self) -> None:
        while True:
            await self._say_alive()
            await asyncio.sleep(PULSE_S)

    async def _say_alive(self) -> None:
        await self._send(wire.Alive(capacity=self._capacity, holding=tuple(self._running)))

    async def _collect(self, lease: wire.Lease) -> None:
        try:
            group = await self.collector.group(lease.lease, lease.task, lease.samples, lease.seed)
        except Exception as error:
            await self._send(wire.Broken(reason=f"{type(error).__name__}: {error}"))
            raise
        await self._send(wire.Done(group=group, counters=self.counters()))
        del self._running[lease.lease]
        await self._say_alive()

    async def _send(self, message: wire.ToLearner) -> None:
        await self._socket.send(wire.encode(message))
