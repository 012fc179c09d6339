"""The audit of a run's start: does the engine compute each layer in what the learner does?

    learner: one forward pass, the dtype that each linear layer gives out
    engine:  its worker's own account, layer by layer        -> the first layer that differs

Compared are the matrix products, where nearly all rounding happens, the output head and the
key-value cache. Embeddings, norms and the residual stream are not: autocast keeps them in fp32 on
the learner's side, and the engine in its dtype.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rltrain.errors import UserError
from rltrain.sync.engines import Engines
from rltrain.sync.tensors import unwrap

Compute = Callable[[], AbstractContextManager[object]]
"""The learner's context for forward passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Layers of both sides, by the names of a checkpoint."""

    learner: Mapping[str, str]
    engine: Mapping[str, str]

    @property
    def compared(self) -> list[str]:
        """Layers that both sides name, in the learner's order."""
        return [name for name in self.learner if name in self.engine]

    @property
    def different(self) -> list[str]:
        return [name for name in self.compared if self.learner[name] != self.engine[name]]

    def sentence(self) -> str | None:
        """What differs, naming the first layer and both dtypes; None if nothing does."""
        if not self.different:
            return None
        first, others = self.different[0], len(self.different) - 1
        more = f" (and {others} more of {len(self.compared)} layers differ)" if others else ""
        return (
            f"the engine computes {first} in {self.engine[first]} and the learner in "
            f"{self.learner[first]}{more}"
        )

    def facts(self) -> dict[str, Any]:
        """For the run directory."""
        sides = {"learner": self.learner, "engine": self.engine}
        counts = {k: dict(Counter(side.values())) for k, side in sides.items()}
        return {
            **counts,
            "head": {k: side.get("lm_head") for k, side in sides.items()},
            "compared": len(self.compared),
            "different": self.different,
        }


@torch.no_grad()
def learner_dtypes(model: Any, compute: Compute, ids: Sequence[int]) -> dict[str, str]:
    """What each linear layer gives out when the learner scores `ids`, by layer."""
    model = unwrap(model)
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    found: dict[str, str] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            found[name] = str(output.dtype).removeprefix("torch.")

        return hook

    head = inner.get_output_embeddings()
    hooks = []
    for name, module in inner.named_modules():
        if isinstance(module, nn.Linear):
            known = "adapter" if "lora_" in name else name.replace(".base_layer", "")
            hooks.append(module.register_forward_hook(note("lm_head" if module is head else known)))
    training = inner.training
    inner.eval()
    try:
        with compute():
            inner(input_ids=torch.tensor([list(ids)], device=head.weight.device))
    finally:
        inner.train(training)
        for hook in hooks:
            hook.remove()
    layers = [dtype for name, dtype in found.items() if name not in ("lm_head", "adapter")]
    most = Counter(layers).most_common(1)[0][0]
    return {**found, "model": most, "key-value cache": most}


async def audit(
    engines: Engines, model: Any, compute: Compute, ids: Sequence[int], *, allow: bool
) -> Comparison:
    """Compare the learner with every worker of every engine.

    Raises `UserError`, which names the layer and both dtypes, for a difference unless `allow`;
    `EngineFault` if an engine does not answer."""
    learner = learner_dtypes(model, compute, ids)
    await engines.wait_healthy()
    replies = [reply for workers in await engines.call("rltrain_dtypes") for reply in workers]
    comparisons = [Comparison(learner=learner, engine=reply) for reply in replies]
    worst = max(comparisons, key=lambda one: len(one.different))
    said = worst.sentence()
    if said is not None and not allow:
        raise UserError(
            f"{said}; give both sides one precision (precision=…, engine.dtype=auto), or go on "
            "with precision.allow_mismatch=true"
        )
    return worst
