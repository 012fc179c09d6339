"""Full weights through memory-backed files."""

from __future__ import annotations

import torch

from rltrain.sync.push import Payload, Pusher
from rltrain.sync.tensors import full_tensors


class FileSync(Pusher):
    """A `protocols.WeightSync` that sends every parameter, for engines on this machine."""

    def payload(self, model: torch.nn.Module) -> Payload:
        return Payload(tensors=full_tensors(model, self.dtype), files={})
