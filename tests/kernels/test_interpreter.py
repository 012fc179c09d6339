"""The Triton kernels on the CPU: the other tests of this folder once more, interpreted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rltrain_kernels.available import HAS_TRITON, INTERPRETED

HERE = Path(__file__).parent


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed (make setup)")
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreted run")
def test_the_kernels_pass_the_same_tests_under_tritons_interpreter() -> None:
    """In a process of its own: Triton decides when it is imported."""
    files = [str(HERE / name) for name in ("test_linear_logprob.py", "test_policy_loss.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-k", "triton", *files],
        cwd=HERE.parents[1],
        env={**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 20, done.stdout[-500:]
