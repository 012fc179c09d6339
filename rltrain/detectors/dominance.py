"""One component that pays for nearly everything: the others no longer teach.

For a sum of components it is the component's share of what was paid. For gates in order it is the
gate at which rollouts ended: when most of the reward is paid by floors and partial credit of gates
that *failed*, the policy lives on consolation prizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rltrain.detectors.run_level import MIN_ROLLOUTS, Alarm
from rltrain.types import Group

VERSION = "1"
DOMINANT = 0.9
FLOORS = 0.75
"""Share of the reward paid by one failed gate from which on it is an alarm."""
MIN_PAID = 0.02
"""Mean reward below which there is nothing to live on."""


def component_dominance(
    components: Mapping[str, Sequence[float]], share: float = DOMINANT
) -> Alarm | None:
    """One of several components pays at least `share` of all that is paid, in absolute value.

    Args:
        components: name -> [N] contributions per rollout, already weighted. Fewer than two
            components, or fewer than 32 rollouts, say nothing.

    Raises `ValueError` if the components are not equally long. Severity is the share reached.
    """
    lengths = {len(values) for values in components.values()}
    if len(lengths) > 1:
        raise ValueError("components must be equally long.")
    if len(components) < 2 or lengths.pop() < MIN_ROLLOUTS:
        return None
    paid = {name: math.fsum(map(abs, values)) for name, values in components.items()}
    total = math.fsum(paid.values())
    if total <= 0 or not math.isfinite(total):
        return None
    name = max(paid, key=lambda key: paid[key])
    if paid[name] / total < share:
        return None
    reached = paid[name] / total
    return Alarm(
        name="component_dominance",
        evidence=f"{name!r} pays {reached:.0%} of the reward; "
        + ", ".join(f"{n!r} {v / total:.0%}" for n, v in paid.items() if n != name),
        severity=reached,
    )


def floor_dominance(groups: Sequence[Group], share: float = FLOORS) -> Alarm | None:
    """One gate's consolation for failing it pays at least `share` of a step's reward.

    Rollouts are paid by the last gate they reached. Rewards set to zero by a detector pay nothing.
    """
    paid: dict[tuple[str, bool], float] = {}
    count = 0
    for group in groups:
        for member in group.members:
            if member.dropped or not member.judged.verdicts:
                continue
            last = member.judged.verdicts[-1]
            # A gate may pass every answer and pay partial credit; the truth tells these apart.
            key = (last.gate, last.passed and member.judged.truth != 0.0)
            paid[key] = paid.get(key, 0.0) + max(member.reward, 0.0)
            count += 1
    total = math.fsum(paid.values())
    if count < MIN_ROLLOUTS or total / count < MIN_PAID:
        return None
    (gate, earned), most = max(paid.items(), key=lambda item: item[1])
    if earned or most / total < share:
        return None
    return Alarm(
        name="component_dominance",
        evidence=f"{most / total:.0%} of the reward is paid by {gate!r} to answers that are wrong",
        severity=most / total,
    )
