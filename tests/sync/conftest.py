"""One engine for full weights and one with adapters, each started once per session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rltrain.rollout.engine_server import EngineServer
from tests.sync.tiny_engine import serving


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    with serving(tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest.fixture(scope="module")
def lora_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    with serving(tmp_path_factory.mktemp("lora"), lora_rank=4) as server:
        yield server
