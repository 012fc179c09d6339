"""Which layer's gradient overflowed first.

A backward pass goes from the loss to the embeddings, and what is not finite spreads to every layer
that it still has to reach. So the first parameter with a bad gradient, in the order in which the
backward pass completes them, is where it began. That order is recorded, not assumed: a residual
network completes its layers in another order than it defines them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Overflow:
    """One update whose gradient was not finite."""

    first: str
    """Parameter where it began."""
    names: tuple[str, ...]
    """All parameters with a bad gradient, in backward order."""
    parameters: int
    """How many have a gradient at all."""
    scale: float
    """The loss scale that it happened at."""

    def sentence(self) -> str:
        """What happened, for an event."""
        more = len(self.names) - SHOWN
        rest = ", ".join(self.names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
        return (
            f"the gradient of {self.first} overflowed first (loss scale {self.scale:g}); of "
            f"{self.parameters} gradients {len(self.names)} are not finite: {rest}"
        )


class BackwardOrder:
    """Records in which order the backward pass completes the parameters' gradients."""

    def __init__(self, named: Iterable[tuple[str, Tensor]]) -> None:
        self.named = {name: p for name, p in named if p.requires_grad}
        self.order: dict[str, None] = {}
        for name, parameter in self.named.items():
            hooked: Any = parameter
            hooked.register_post_accumulate_grad_hook(self._note(name))

    def _note(self, name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            self.order.setdefault(name)

        return hook

    @torch.no_grad()
    def find(self, scale: float) -> Overflow | None:
        """The overflow in the gradients as they are now; None if all are finite."""
        grads = {k: g for k, p in self.named.items() if (g := p.grad) is not None}
        ordered = [n for n in self.order if n in grads] + [n for n in grads if n not in self.order]
        bad = tuple(name for name in ordered if not bool(torch.isfinite(grads[name]).all()))
        if not bad:
            return None
        return Overflow(first=bad[0], names=bad, parameters=len(grads), scale=scale)

