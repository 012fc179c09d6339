"""Advantages: what the rewards of a step say about each sibling.

`group` holds those that look at one group at a time, `step` those that take their scale from all
groups of the step. A new one is one function and one line in `ADVANTAGES`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial

from rltrain.algo.advantages.base import Advantage, GroupRewards, per_group
from rltrain.algo.advantages.group import (
    grpo,
    maxrl,
    mean_centred,
    opo,
    pass_at_k,
    reinforce,
    remax,
    rloo,
)
from rltrain.algo.advantages.step import (
    gdpo,
    gpg,
    lite_ppo,
    reinforce_pp,
    reinforce_pp_baseline,
)

ADVANTAGES: dict[str, Callable[..., list[list[float]]]] = {
    "mean_centred": mean_centred,
    "grpo": grpo,
    "rloo": rloo,
    "maxrl": maxrl,
    "opo": opo,
    "pass_at_k": pass_at_k,
    "remax": remax,
    "reinforce": reinforce,
    "lite_ppo": lite_ppo,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
    "gpg": gpg,
    "gdpo": gdpo,
}
"""name -> f(groups of the step, **advantage_args), one number per sibling of each group."""

GREEDY = frozenset({"remax"})
"""Those that need a greedy answer beside the siblings (`GroupRewards.greedy`)."""

ALONE = frozenset({"reinforce", "reinforce_pp", "remax"})
"""Those that say something about a group of one, whose baseline is not the group's."""


def bind(name: str, args: Mapping[str, float], components: Collection[str] = ()) -> Advantage:
    """The advantage of that name with its arguments bound.

    `components`: names of the reward's components, for which `gdpo` takes a weight each.

    Raises:
        ValueError: for an argument that it does not have, naming those it has.
    """
    function = ADVANTAGES[name]
    _, *parameters = inspect.signature(function).parameters.values()
    has = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    if len(has) < len(parameters):
        has += components
    unknown = sorted(args.keys() - set(has))
    if unknown:
        raise ValueError(
            f"{name} has no argument {unknown[0]!r}; it has: {', '.join(has) or 'none'}"
        )
    return partial(function, **args)


__all__ = [
    "ADVANTAGES", "ALONE", "GREEDY", "Advantage", "GroupRewards", "bind", "gdpo", "gpg", "grpo",
    "lite_ppo", "maxrl", "mean_centred", "opo", "pass_at_k", "per_group", "reinforce",
    "reinforce_pp", "reinforce_pp_baseline", "remax", "rloo",
]  # fmt: skip
