"""What the order of the gates saves: checks that were never asked, and what asking would have cost.

    cost/asked            spent on checks, over all rollouts of the step (`cost` of the stages)
    cost/saved            not spent: an earlier gate failed, or the verdict was remembered
    time/gates_s          seconds waited for checks, summed over rollouts
    time/gates_saved_s    checks never reached times the mean seconds of those asked in the step

A stage that nobody reached has no mean, and counts for nothing in `time/gates_saved_s`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rltrain.config.rewards import StageConfig
from rltrain.types import Group, Verdict


def savings(stages: Sequence[StageConfig], groups: Sequence[Group]) -> dict[str, float]:
    """The metrics above. Empty without rollouts; `cost/…` only if a stage has a cost."""
    members = [member for group in groups for member in group.members]
    if not members:
        return {}
    verdicts = [verdict for member in members for verdict in member.judged.verdicts]
    asked_s = saved_s = spent = total = 0.0
    for stage in stages:
        reached = [verdict for verdict in verdicts if verdict.gate == stage.gate]
        fresh = [verdict for verdict in reached if not verdict.cached]
        seconds = [verdict.wall_s for verdict in fresh]
        asked_s += sum(seconds)
        saved_s += (len(members) - len(reached)) * (fmean(seconds) if seconds else 0.0)
        spent += stage.cost * _asked(fresh)
        total += stage.cost * len(members)
    metrics = {"time/gates_s": asked_s, "time/gates_saved_s": saved_s}
    if total:
        metrics |= {"cost/asked": spent, "cost/saved": total - spent}
    return metrics


def _asked(verdicts: Sequence[Verdict]) -> int:
    """Without the answers that were failed unasked, for want of a canonical form."""
    return sum(not verdict.reason.startswith("unparsed") for verdict in verdicts)
