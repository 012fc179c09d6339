"""What training goes on from besides the weights: plain values that `weights_only` loads.

    taken at a step -> `snapshot` on the CPU -> written by a thread -> state.pt -> the next step
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def rng_state() -> dict[str, Any]:
    """Where the generators of torch, CUDA, numpy and Python stand."""
    drawn: Any = np.random.get_state(legacy=False)
    words = torch.from_numpy(drawn["state"]["key"].astype(np.int64))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {**drawn, "state": {**drawn["state"], "key": words}},
        "python": random.getstate(),
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Put all generators where `rng_state` found them. CUDA's are left alone if the number of
    devices is another one."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    inner = state["numpy"]["state"]
    words = inner["key"].numpy().astype(np.uint32)
    np.random.set_state({**state["numpy"], "state": {**inner, "key": words}})
    version, words, next_gauss = state["python"]
    random.setstate((version, tuple(words), next_gauss))


def snapshot(value: Any, seen: dict[tuple[Any, ...], Tensor] | None = None) -> Any:
    """A copy in the CPU's memory that later steps do not change. Tensors that share their memory
    still share it in the copy."""
    seen = {} if seen is None else seen
    if isinstance(value, Tensor):
        key = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
        if key not in seen:
            seen[key] = value.detach().to("cpu", copy=True)
        return seen[key]
    if isinstance(value, Mapping):
        return {name: snapshot(item, seen) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item, seen) for item in value)
    return value
