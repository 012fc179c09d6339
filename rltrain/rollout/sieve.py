"""Dynamic sampling: groups that teach nothing are not consumed but replaced by other tasks.

Where all siblings earned the same there is no better and no worse, so most advantages are zero.
Decided in the order of leases, never of arrival, or quick answers would be favoured. For one step
at most `limit` groups are replaced; after that the step uses what there is, so that a policy that
always or never succeeds ends its run instead of sampling for ever.

Paper: DAPO, arXiv 2503.14476, sec. 3.2
"""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

from rltrain.batch.samples import voters
from rltrain.types import Group


def has_spread(group: Group, filter_truncated: bool = False) -> bool:
    """Whether the voters of a group, or they and the greedy answer, earned different rewards.

    Rewards as the gates gave them: a length penalty alone is no reason to keep a group."""
    rewards = {member.reward for member in voters(group, filter_truncated)}
    if group.greedy is not None and rewards:
        rewards.add(group.greedy.reward)
    return len(rewards) > 1


class Sieve:
    """Says of each group, asked in the order of leases, whether a step uses it."""

    def __init__(
        self, groups_per_step: int, limit: int, filter_truncated: bool = False, kept: int = 0
    ) -> None:
        """`limit` groups at most are replaced for one step; 0 replaces none. `kept` groups have
        been used already, by a run that goes on."""
        self.groups_per_step = groups_per_step
        self.limit = limit
        self.filter_truncated = filter_truncated
        self._kept = kept
        self._replaced: dict[int, list[float]] = defaultdict(list)
        """Step, 0-based -> mean reward of each group that was replaced for it."""

    def keep(self, group: Group) -> bool:
        replaced = self._replaced[self._kept // self.groups_per_step]
        if has_spread(group, self.filter_truncated) or len(replaced) >= self.limit:
            self._kept += 1
            return True
        replaced.append(fmean(m.reward for m in group.members if not m.dropped))
        return False

    def metrics(self, step: int) -> dict[str, float]:
        """`sampling/replaced` groups for this 0-based step, and the mean reward of those, without
        which the step's own mean reward would look as if they had never been; empty if off."""
        if not self.limit:
            return {}
        replaced = self._replaced[step]
        metrics = {"sampling/replaced": float(len(replaced))}
        if replaced:
            metrics["sampling/replaced_reward"] = fmean(replaced)
        return metrics
