"""How a call is cut into chunks so that its workspace stays inside a budget."""

from __future__ import annotations

from dataclasses import dataclass

import torch

ROUND = 256
"""Vocabulary chunks are a multiple of this: whole tiles of the matrix product."""
MOST_TOKENS = 8192
"""Tokens per chunk. More would not make the products faster; fewer would read and write the
gradient of the weights, [V, H] in fp32, more often."""
WORKSPACE = {"cuda": 512 << 20, "cpu": 64 << 20}
"""Bytes by default, by device type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Chunk sizes of one call."""

    tokens: int
    vocabulary: int


def make_plan(
    shape: tuple[int, int, int], budget: int, *, gradient: bool, element: int, held: bool
) -> Plan:
    """Chunks of [N, H] x [V, H] within `budget` bytes; never less than one row by `ROUND` columns.

    Args:
        shape: N, V, H.
        gradient: backward also holds an fp32 sum of the hidden states' gradient, [tokens, H].
        element: bytes of a compute-dtype element.
        held: logits of a chunk are held in fp32 (torch), not only in registers (Triton).
    """
    tokens, vocabulary, width = shape
    # torch holds a chunk of logits about three times over: itself, its exponentials, one more
    cell = (12 if held else 0) + (element if gradient else 0)
    if not cell:  # a forward pass in Triton: logits live in registers
        # Only the parts of rows are held, a few numbers per token and 1024 logits.
        return Plan(tokens=max(1, min(tokens, 4 * MOST_TOKENS)), vocabulary=max(vocabulary, 1))
    row = 4 * width if gradient else 0
    chunk = max(1, min(tokens, MOST_TOKENS, budget // max(row + cell * ROUND, 1)))
    fits = max(ROUND, (budget - chunk * row) // (cell * chunk) // ROUND * ROUND)
    pieces = -(-vocabulary // fits)
    even = -(-vocabulary // pieces)  # chunks of one size: the last product is no small one
    return Plan(tokens=chunk, vocabulary=min(-(-even // ROUND) * ROUND, max(vocabulary, 1)))


def default_workspace(device: torch.device) -> int:
    """Bytes of workspace on this device, unless a call says otherwise."""
    return WORKSPACE.get(device.type, WORKSPACE["cuda"])
