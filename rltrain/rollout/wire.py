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


class Alive(msgspec.Struct, frozen=True, tag=True):
    """Worker -> learner, at the start, every second and whenever a group is done: what it could
    hold and what it holds. Whole each time, so that a message that is lost does no harm."""

    capacity: int
    """Groups that it keeps in flight."""
    holding: tuple[int, ...]
    """Leases that it works on."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """Worker -> learner: a group, whole or with faults."""

    group: Group
    counters: dict[str, float] = {}
    """Cumulative counts of this worker: judge calls, cache hits, retries."""


class Broken(msgspec.Struct, frozen=True, tag=True):
    """Worker -> learner: this worker cannot go on, and why."""

    reason: str


ToWorker = Lease | Stop
ToLearner = Alive | Done | Broken

encode = msgspec.msgpack.Encoder().encode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_to_learner = msgspec.msgpack.Decoder(ToLearner).decode
