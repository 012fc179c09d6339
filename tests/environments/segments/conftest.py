"""The stores are built once for all tests: they never change."""

from __future__ import annotations

import pytest

from rltrain.types import Task
from rltrain_envs.segments.env import Segments
from rltrain_envs.segments.verify import Verifier, build_verifier


@pytest.fixture(scope="session")
def verifier() -> Verifier:
    return build_verifier()


@pytest.fixture(scope="session")
def environment(verifier: Verifier) -> Segments:
    return Segments(verifier)


@pytest.fixture(scope="session")
def held_out(environment: Segments) -> list[Task]:
    return list(environment.tasks("test", 0))
