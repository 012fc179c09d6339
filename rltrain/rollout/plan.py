"""What a run asks of its rollouts: how many, how stale, and which seeds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchPlan:
    """How many groups, how stale, and when to give up."""

    groups_per_step: int
    group_size: int
    max_steps: int
    max_lag: int
    seed: int
    max_fault_rate: float
    pause_s: float = 0.0
    """How long no new rollout is begun while too many are lost to the system."""
    max_pauses: int = 0
    """Pauses in a row after which the run ends."""
    stall_s: float = 300.0
    """Longest wait without a single group before the run is stopped as stalled."""
    filter_truncated: bool = False
    """Truncated answers are not trained on; the ledger drops them as `overlong`."""
    fewest: int = 2
    """Siblings without which a group says nothing."""
    max_replaced: int = 0
    """Groups without spread that are replaced for one step at most; 0 keeps them all."""
    greedy: bool = False
    """A group comes with a greedy answer, which is issued and counted but never consumed."""

    @property
    def rollouts(self) -> int:
        """Rollouts that one lease issues."""
        return self.group_size + self.greedy


def group_seed(run_seed: int, lease: int) -> int:
    """Seed of a group's sampling. The engine adds the sibling's index, so groups stand apart by
    more than any group size: no two rollouts of a run, or of runs with near seeds, share one."""
    return (run_seed * 1_000_003 + lease) * 4099 % 2**31
