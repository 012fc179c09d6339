"""What became of the rollouts of a group, entered in the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from rltrain.batch.samples import is_voter, voters
from rltrain.rollout.ledger import CONSUMED, Ledger
from rltrain.types import Group, Screened

ALONE = "alone_in_group"
BASELINE = "greedy_baseline"


def settle(
    ledger: Ledger,
    group: Group,
    step: int | None,
    *,
    reason: str = ALONE,
    filter_truncated: bool = False,
    fewest: int = 2,
) -> None:
    """Enter a group's fate: those with a vote consumed at `step`, the others dropped by reason.

    Without a step, or with fewer than `fewest` voters, the voters are dropped for `reason`.
    A greedy answer is a baseline and never consumed: `greedy_baseline`."""
    used = step is not None and len(voters(group, filter_truncated)) >= fewest
    fates = {fault.sample: f"fault:{fault.kind}" for fault in group.faults}
    if group.greedy is not None:
        fates[group.greedy.judged.episode.sample] = BASELINE
    for member in group.members:
        fate = _fate(member, CONSUMED if used else reason, filter_truncated)
        fates[member.judged.episode.sample] = fate
    ledger.settle(group.lease, step=step, fates=fates)


def _fate(member: Screened, as_voter: str, filter_truncated: bool) -> str:
    if member.dropped:
        name = next(flag.detector for flag in member.flags if flag.action == "drop")
        return f"detector:{name}"
    return as_voter if is_voter(member, filter_truncated) else "overlong"


def settle_all(
    ledger: Ledger,
    groups: Sequence[Group],
    step: int,
    *,
    filter_truncated: bool = False,
    fewest: int = 2,
) -> None:
    """Enter the fate of every group that a step consumed."""
    for group in groups:
        settle(ledger, group, step, filter_truncated=filter_truncated, fewest=fewest)
