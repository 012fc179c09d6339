"""Whether Triton can be used, asked once and never at the cost of an import error."""

from __future__ import annotations

import importlib.util
import os

import torch

HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton then runs its kernels in Python, on any device: slow, for tests."""


def triton_runs_on(device: torch.device) -> bool:
    """Whether a Triton kernel can be launched on tensors of this device."""
    return HAS_TRITON and (device.type == "cuda" or INTERPRETED)


def check_triton(device: torch.device) -> None:
    """Raises `ValueError` if no Triton kernel can be launched on this device."""
    if not triton_runs_on(device):
        raise ValueError(
            f"backend='triton' needs Triton and a GPU, here is {device.type} "
            f"{'with' if HAS_TRITON else 'without'} Triton; use backend='auto' or 'torch'"
        )
