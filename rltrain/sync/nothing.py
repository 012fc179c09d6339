"""The weight sync of a run without engines: a replay trains on what was sampled before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class NoSync:
    """A `protocols.WeightSync` with nobody to bring weights to."""

    async def push(self, model: torch.nn.Module, version: int) -> Mapping[str, float]:
        return {}

    async def serves(self, version: int) -> bool:
        return True
