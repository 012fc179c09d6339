"""What travels between learner and workers: typed MessagePack over ZeroMQ, never pickle."""

from __future__ import annotations

import msgspec

from rltrain.types import Group, Task


class Lease(msgspec.Struct, frozen=True, tag=True):
    """Learner -> worker: sample this task `samples` times."""

    lease: int
    task: Task
    samples: int
    seed: int
    """Seed of the group; each sibling's seed follows from it and its index."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Learner -> worker: there is nothing more to do."""


class Want(msgspec.Struct, frozen=True, tag=True):
    """Worker -> learner: `count` more leases would be welcome."""

    count: int


class Done(msgspec.Struct, frozen=True, tag=True):
    """Worker -> learner: a group, whole or with faults."""

    group: Group
    counters: dict[str, float] = {}
    """Cumulative counts of this worker: judge calls, cache hits, retries."""


class Broken(msgspec.Struct, frozen=True, tag=True):
    """Worker -> learner: this worker cannot go on, and why."""

    reason: str


ToWorker = Lease | Stop
ToLearner = Want | Done | Broken

encode = msgspec.msgpack.Encoder().encode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_to_learner = msgspec.msgpack.Decoder(ToLearner).decode
