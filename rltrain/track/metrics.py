"""Groups of rollouts -> the numbers of one step. Pure; what cannot be measured is left out.

A key that is absent means "not measured in this step" (nobody reached the gate, no rollout has a
truth); it never stands for 0. The exceptions are counts of things found, `flag/<detector>` and
`faults/<kind>`: whoever found nothing has no key, and that is a 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean, pstdev

from rltrain.types import Episode, Group, Screened, Verdict

VALIDITY_GATES = ("format", "syntax", "schema")
JUDGE_GATE = "judge"


def group_metrics(
    groups: Sequence[Group],
    *,
    version: int,
    validity_gates: Sequence[str] = VALIDITY_GATES,
    judge_gate: str | None = JUDGE_GATE,
) -> dict[str, float]:
    """Metrics over all rollouts of a step (the denominator of every rate is stated below).

    version: the policy version being trained now; lag = version - group.version, per rollout.
    judge_gate: None leaves out `judge/…`, for a run without a judge.

    `reward/mean`, `reward/std`, `group/…` cover the rollouts that are trained on (not dropped);
    everything else covers all rollouts. Rates lie in [0, 1]; lengths are sampled tokens.
    """
    members = [member for group in groups for member in group.members]
    metrics = {"rollouts/count": float(len(members)), "group/count": float(len(groups))}
    metrics |= _faults(groups)
    if not members:
        return metrics
    metrics |= _rewards(members) | _groups(groups) | _gates(members) | _flags(members)
    metrics |= _lengths([member.judged.episode for member in members]) | _lag(groups, version)
    valid = validity([member.judged.verdicts for member in members], validity_gates)
    if valid is not None:
        metrics["valid/rate"] = fmean(valid)
    if judge_gate is not None:
        metrics |= _judge(members, judge_gate)
    return metrics


def validity(
    verdicts: Sequence[Sequence[Verdict]], gates: Sequence[str] = VALIDITY_GATES
) -> list[bool] | None:
    """Per rollout: did it reach and pass every validity gate that is in use?

    A rollout stopped by an earlier gate never proved itself valid, so it is not. None if nobody
    reached any of the gates: then there is nothing to measure."""
    used = {verdict.gate for chain in verdicts for verdict in chain} & set(gates)
    if not used:
        return None
    passed = [{verdict.gate for verdict in chain if verdict.passed} for chain in verdicts]
    return [used <= names for names in passed]


def _rewards(members: Sequence[Screened]) -> dict[str, float]:
    trained = [member.reward for member in members if not member.dropped]
    truths = [member.judged.truth for member in members if member.judged.truth is not None]
    metrics = {"reward/judged_mean": fmean(member.judged.reward for member in members)}
    if trained:
        metrics |= {"reward/mean": fmean(trained), "reward/std": pstdev(trained)}
    if truths:
        metrics["truth/mean"] = fmean(truths)
    return metrics


def _groups(groups: Sequence[Group]) -> dict[str, float]:
    """`group/zero_variance`: share of groups that teach nothing, since all rewards are equal."""
    rewards = [
        [member.reward for member in group.members if not member.dropped] for group in groups
    ]
    return {
        "group/zero_variance": fmean(len(set(siblings)) < 2 for siblings in rewards),
        "group/size_mean": fmean(len(siblings) for siblings in rewards),
    }


def _verdicts(members: Sequence[Screened]) -> Iterator[Verdict]:
    return (verdict for member in members for verdict in member.judged.verdicts)


def _gates(members: Sequence[Screened]) -> dict[str, float]:
    """`pass` is of those that reached the gate; `reached` is of all rollouts."""
    reached = Counter(verdict.gate for verdict in _verdicts(members))
    passed = Counter(verdict.gate for verdict in _verdicts(members) if verdict.passed)
    metrics = {}
    for gate, count in reached.items():
        metrics[f"gate/{gate}/pass"] = passed[gate] / count
        metrics[f"gate/{gate}/reached"] = count / len(members)
    return metrics


def _flags(members: Sequence[Screened]) -> dict[str, float]:
    """Shares of all rollouts. A detector that found nothing in this step has no key."""
    found = [{flag.detector for flag in member.flags} for member in members]
    counts = Counter(detector for detectors in found for detector in detectors)
    rates = {f"flag/{name}": count / len(members) for name, count in sorted(counts.items())}
    return rates | {"flag/any": fmean(bool(detectors) for detectors in found)}


def generated(episode: Episode) -> int:
    """Tokens that the policy sampled in all turns."""
    return sum(len(turn.completion_ids) for turn in episode.turns)


def _lengths(episodes: Sequence[Episode]) -> dict[str, float]:
    lengths = [generated(episode) for episode in episodes]
    return {
        "tokens/generated": float(sum(lengths)),
        "length/mean": fmean(lengths),
        "length/truncated": fmean(episode.ended == "truncated" for episode in episodes),
    }


def _lag(groups: Sequence[Group], version: int) -> dict[str, float]:
    lags = [version - group.version for group in groups for _ in group.members]
    return {"lag/mean": fmean(lags), "lag/max": float(max(lags))}


def _faults(groups: Sequence[Group]) -> dict[str, float]:
    counts = Counter(fault.kind for group in groups for fault in group.faults)
    return {f"faults/{kind}": float(count) for kind, count in sorted(counts.items())}


def _judge(members: Sequence[Screened], gate: str) -> dict[str, float]:
    """Calls made, calls answered from memory, and rollouts that never needed one."""
    verdicts = [verdict for verdict in _verdicts(members) if verdict.gate == gate]
    cached = sum(verdict.cached for verdict in verdicts)
    return {
        "judge/calls": float(len(verdicts) - cached),
        "judge/cached": float(cached),
        "judge/saved": float(len(members) - len(verdicts)),
    }
