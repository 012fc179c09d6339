"""A LoRA adapter through memory-backed files; the engine's base weights stay as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from rltrain.config.rollout import SyncConfig
from rltrain.sync.engines import Engines
from rltrain.sync.push import Payload, Pusher
from rltrain.sync.tensors import adapter_tensors
from rltrain.sync.worker_ext import ADAPTER_CONFIG


class AdapterSync(Pusher):
    """A `protocols.WeightSync` for a PEFT model. Requests (and the `engines` given here) name the
    adapter as their model; the name is registered, in a run's one slot, at the first push to an
    engine that does not know it."""

    def __init__(
        self,
        engines: Engines,
        config: SyncConfig,
        *,
        dtype: torch.dtype,
        probe_ids: Sequence[int],
        run_dir: Path,
        name: str,
    ) -> None:
        super().__init__(engines, config, dtype=dtype, probe_ids=probe_ids, run_dir=run_dir)
        self.name = name

    def payload(self, model: torch.nn.Module) -> Payload:
        tensors, config = adapter_tensors(model, self.dtype)
        return Payload(tensors=tensors, files={ADAPTER_CONFIG: json.dumps(config)})

    async def prepare(self, folder: str) -> None:
        await self.engines.load_adapter(self.name, folder)
