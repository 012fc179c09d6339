"""Messages come out as they went in, and nothing else is understood."""

from __future__ import annotations

import math

import msgspec
import pytest

from rltrain.rollout import wire
from rltrain.types import Message, Task
from tests.makers import make_group, make_task


def test_a_lease_travels_whole() -> None:
    task = Task(
        id="a", env="e", prompt=(Message(role="user", content="Grüße 漢 \u202e"),), split="train",
        data={"gold": {"all": [1, 2.5, None, True]}}, meta={"tier": 2},
    )  # fmt: skip
    lease = wire.Lease(lease=3, task=task, samples=8, seed=2**31 - 1)
    assert wire.decode_to_worker(wire.encode(lease)) == lease


def test_a_group_travels_whole_and_typed() -> None:
    group = make_group([1.0, 0.25, 0.0], lease=9, lost=[2], dropped=[0])
    back = wire.decode_to_learner(wire.encode(wire.Done(group=group, counters={"judge": 3.0})))
    assert isinstance(back, wire.Done)
    assert back.group == group
    assert back.counters == {"judge": 3.0}
    assert back.group.members[0].judged.episode.turns[0].completion_ids == (8, 9)


def test_a_missing_log_probability_stays_missing() -> None:
    logprobs = msgspec.msgpack.decode(wire.encode((-0.5, math.nan)), type=tuple[float, ...])
    assert logprobs[0] == -0.5
    assert math.isnan(logprobs[1])


@pytest.mark.parametrize(
    "message", [wire.Alive(capacity=2, holding=(7,)), wire.Broken(reason="no disk")]
)
def test_the_worker_s_messages_come_back_equal(message: wire.ToLearner) -> None:
    assert wire.decode_to_learner(wire.encode(message)) == message


def test_messages_of_the_other_direction_or_of_nobody_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        wire.decode_to_learner(wire.encode(wire.Stop()))
    with pytest.raises(msgspec.ValidationError):
        wire.decode_to_worker(wire.encode(wire.Alive(capacity=1, holding=())))
    with pytest.raises(msgspec.DecodeError):
        wire.decode_to_learner(b"\xc1")
    wrong = {"type": "Lease", "lease": "three", "task": make_task(), "samples": 1, "seed": 1}
    with pytest.raises(msgspec.ValidationError, match="lease"):
        wire.decode_to_worker(msgspec.msgpack.encode(wrong))
