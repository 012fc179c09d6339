"""Digests of tensors: what was sent is what was received, bit for bit. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def tensor_digest(tensor: torch.Tensor) -> str:
    """Hex digest of a tensor's dtype, shape and bytes, wherever it lives.

    BLAKE2b runs at about 1 GB/s on one core."""
    flat = tensor.detach().to("cpu").contiguous().flatten().view(torch.uint8)
    state = hashlib.blake2b(f"{tensor.dtype}{tuple(tensor.shape)}".encode(), digest_size=16)
    state.update(flat.numpy().data)
    return state.hexdigest()


def digests(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """`tensor_digest` of each, in the given order."""
    return {name: tensor_digest(tensor) for name, tensor in tensors.items()}


def difference(sent: Mapping[str, str], received: Mapping[str, str]) -> str | None:
    """What differs first, in sending order, as a phrase; None if both are the same."""
    for name, digest in sent.items():
        if name not in received:
            return f"{name} did not arrive"
        if received[name] != digest:
            return f"{name} arrived altered ({digest[:8]} was sent, {received[name][:8]} received)"
    extra = next((name for name in received if name not in sent), None)
    return None if extra is None else f"{extra} arrived and was never sent"
