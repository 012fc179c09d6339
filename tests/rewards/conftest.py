"""One judge server for the module, as good as new for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rewards.judge_server import JudgeServer, serving


@pytest.fixture(scope="package")
def _server() -> Iterator[JudgeServer]:
    with serving() as app:
        yield app


@pytest.fixture
def server(_server: JudgeServer) -> JudgeServer:
    fresh = JudgeServer()
    fresh.endpoint = _server.endpoint
    for name, value in vars(fresh).items():
        setattr(_server, name, value)
    return _server
