"""One small policy for all tests of offline methods."""

from __future__ import annotations

from pathlib import Path

import pytest

from rltrain.rollout.render import Renderer
from tests.offline.offline_makers import make_policy


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def renderer(policy: Path) -> Renderer:
    return Renderer.load(policy)
