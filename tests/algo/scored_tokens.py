"""Scored tokens made from ratios: what tests of losses and corrections start from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rltrain.algo.scored import Scored


def scored_tokens(
    ratios: Sequence[float],
    advantages: Sequence[float],
    seq: Sequence[int] | None = None,
    *,
    old: Sequence[float] | float = 0.25,
    rho: Sequence[float] | None = None,
    reference: Sequence[float] | None = None,
) -> Scored:
    """Float64 tokens with pi / pi_old = `ratios`, pi_old = `old`, pi_old / mu = `rho` (1 if not
    given) and pi_ref = `reference`, as probabilities. `new` is a leaf with a gradient."""
    count = len(ratios)
    old_N = tensor([old] * count if isinstance(old, float) else old).log()
    new_N = (old_N + tensor(ratios).log()).requires_grad_()
    of = list(seq) if seq is not None else [0] * count
    return Scored(
        new=new_N,
        old=old_N,
        trainer=old_N,
        behaviour=old_N - tensor(rho or [1.0] * count).log(),
        advantages=tensor(advantages),
        seq=torch.tensor(of),
        sequences=max(of) + 1,
        entropy=torch.zeros(count, dtype=torch.float64),
        reference=None if reference is None else tensor(reference).log(),
    )


def tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
