"""One complete synthetic run for all tests of this folder; whoever changes it takes a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.synthetic import write_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with one rollout whose every text attacks the report. Read only."""
    return write_run(tmp_path_factory.mktemp("runs") / "finished", hostile=True)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a copy of the finished run that a test may damage."""
    return lambda: Path(shutil.copytree(finished, tmp_path / "run"))
