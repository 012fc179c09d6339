"""While the learner waits for groups, engines that lost its weights get them again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from rltrain.errors import SyncError
from rltrain.sync import guard
from rltrain.sync.guard import guarded

MODEL = torch.nn.Linear(1, 1)


class Serving:
    """A `WeightSync` whose engine serves what `served` says."""

    def __init__(self, served: int, broken: bool = False) -> None:
        self.served = served
        self.broken = broken
        self.pushed = threading.Event()

    async def serves(self, version: int) -> bool:
        return version == self.served

    async def push(self, model: Any, version: int) -> Mapping[str, float]:
        if self.broken:
            raise SyncError("the weights changed on the way")
        self.served = version
        self.pushed.set()
        return {}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "POLL_S", 0.02)


def test_an_engine_with_other_weights_gets_the_present_ones_and_the_wait_goes_on() -> None:
    sync = Serving(served=0)

    def take() -> str:
        assert sync.pushed.wait(20), "nobody pushed"
        return "groups"

    assert asyncio.run(guarded(take, sync, MODEL, version=3)) == "groups"
    assert sync.served == 3


def test_nothing_is_pushed_where_everything_is_as_it_should_be() -> None:
    sync = Serving(served=3)
    assert asyncio.run(guarded(lambda: time.sleep(0.2) or "groups", sync, MODEL, 3)) == "groups"
    assert not sync.pushed.is_set()


def test_an_error_of_the_wait_is_raised_as_it_is() -> None:
    def take() -> str:
        raise ValueError("too many faults")

    with pytest.raises(ValueError, match="too many faults"):
        asyncio.run(guarded(take, Serving(1), MODEL, 1))


def test_a_push_that_fails_ends_the_wait_at_once_however_long_it_would_last() -> None:
    never = threading.Event()
    started = time.monotonic()
    with pytest.raises(SyncError, match="changed on the way"):
        asyncio.run(guarded(lambda: never.wait(60), Serving(0, broken=True), MODEL, 1))
    assert time.monotonic() - started < 30
    never.set()
