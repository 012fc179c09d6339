"""A rollout worker: an asyncio process that keeps many groups in flight at once.

Run as `python -m rltrain.rollout.worker`, never by hand; `rltrain train` starts it and gives it its
place in the run through `build.worker`. It imports no torch of its own and owns no GPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq
import zmq.asyncio

from rltrain.rollout import wire
from rltrain.rollout.collect import Collector


class Worker:
    """Asks for leases, collects their groups, returns them; ends on `Stop`."""

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
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, concurrency: int) -> None:
        """Serve until told to stop. A bug (any exception that is not a system fault) is reported
        to the learner, which stops the run, and then raised."""
        try:
            await self._send(wire.Want(count=concurrency))
            while True:
                message = wire.decode_to_worker(await self._socket.recv())
                if isinstance(message, wire.Stop):
                    return
                job = asyncio.create_task(self._collect(message))
                self._running.add(job)
                job.add_done_callback(self._running.discard)
        finally:
            for job in self._running:
                job.cancel()
            self._socket.close(linger=1000)

    async def _collect(self, lease: wire.Lease) -> None:
        try:
            group = await self.collector.group(lease.lease, lease.task, lease.samples, lease.seed)
        except Exception as error:
            await self._send(wire.Broken(reason=f"{type(error).__name__}: {error}"))
            raise
        await self._send(wire.Done(group=group, counters=self.counters()))
        await self._send(wire.Want(count=1))

    async def _send(self, message: wire.ToLearner) -> None:
        await self._socket.send(wire.encode(message))
