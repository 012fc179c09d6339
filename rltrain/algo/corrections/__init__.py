"""Corrections for sampling from another policy than the one that trains, one file per idea.

The engine samples from mu (its kernels, its precision, perhaps older weights). A correction turns
the difference into a weight per token; 0 removes the token from the loss (not from the denominator,
which is counted before anything is computed). Nothing here carries a gradient: a weight with one
would add a bias of log pi * grad rho.

Two ratios take part. Weights are rho = pi_old / mu, because the loss goes on from pi_old with its
own pi / pi_old. Whether to trust a token or a sequence at all is decided by trainer / mu, the
learner's own policy against the engine's. With `proximal=recompute` the two are the same; with
`proximal=behaviour` every rho is 1 and only the decisions are left.

Several may be combined: their weights multiply, and at most one of them may weigh by rho. All
others have arguments of different names, so that one table of arguments serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce

import torch
from torch import Tensor

from rltrain.algo.corrections import masking, opsm, rejection, truncation, veto
from rltrain.algo.named import arguments, find
from rltrain.algo.scored import Scored
from rltrain.errors import UserError

Correction = Callable[[Scored], Tensor]
"""Pure, without gradient; keyword arguments are bound beforehand."""


def none(scored: Scored) -> Tensor:
    """1: trust that mu = pi_old"""
    return torch.ones_like(scored.old)


CORRECTIONS: dict[str, Callable[..., Tensor]] = {
    "none": none,
    "token_tis": truncation.token,
    "sequence_tis": truncation.sequence,
    "token_mis": masking.token,
    "icepop": masking.icepop,
    "sequence_mis": masking.sequence,
    "geometric_rejection": rejection.geometric,
    "k3_rejection": rejection.k3,
    "veto": veto.veto,
    "opsm": opsm.opsm,
}
"""name -> f(Scored, **correction_args) -> weights [N]."""

WEIGHING = frozenset({"token_tis", "sequence_tis", "token_mis", "icepop", "sequence_mis"})
"""Those whose weight is rho; all others are 0 or 1."""


def combined(names: Sequence[str], args: Mapping[str, float]) -> Correction:
    """The product of these corrections, keys of `CORRECTIONS` or import paths. Each takes those of
    the arguments that it knows.

    Raises `UserError` for a name or an argument that nobody knows, and for two that weigh by rho.
    """
    weighing = [name for name in names if name in WEIGHING]
    if len(weighing) > 1:
        raise UserError(
            f"config algo.correction: {' and '.join(weighing)} both weigh by pi_old / mu, which "
            "would count it twice; keep one of them"
        )
    found = {name: find("algo.correction", name, CORRECTIONS) for name in names}
    known = {name: arguments(function) for name, function in found.items()}
    unknown = set(args) - set().union(*known.values())
    if unknown:
        raise UserError(
            f"config algo.correction_args: {', '.join(sorted(unknown))} is no argument of "
            + "; ".join(f"{name} ({', '.join(sorted(keys))})" for name, keys in known.items())
        )
    parts = [
        partial(function, **{k: v for k, v in args.items() if k in known[name]})
        for name, function in found.items()
    ]
    return lambda scored: reduce(
        torch.mul, (part(scored) for part in parts), torch.ones_like(scored.old)
    )


__all__ = ["CORRECTIONS", "WEIGHING", "Correction", "combined", "none"]
