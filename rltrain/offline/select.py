"""Stored rollouts -> preference pairs, or answers to imitate. Pure.

Within a group, an answer is preferred if it has the higher reward, or the same reward and passed
more gates. Siblings that the system lost were never stored, and those that a detector dropped are
left out before anything is compared: neither is ever on either side of a pair.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from rltrain.config.offline import SelectConfig

Rollout = Mapping[str, Any]
"""A row of the rollout store (`track.rollouts`)."""
Row = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Selection:
    """What was selected, and what became of the rest."""

    rows: list[Row] = field(default_factory=list)
    rollouts: int = 0
    groups: int = 0
    groups_used: int = 0
    """Groups that gave at least one row."""
    dropped_rollouts: Counter[str] = field(default_factory=Counter)
    """By reason, before anything was compared."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Pairs (SFT: answers) that were looked at and not taken, by reason."""

    def facts(self) -> dict[str, Any]:
        return {
            "rows": len(self.rows),
            "rollouts": self.rollouts,
            "groups": self.groups,
            "groups_used": self.groups_used,
            "dropped_rollouts": dict(sorted(self.dropped_rollouts.items())),
            "dropped": dict(sorted(self.dropped.items())),
        }


def preferences(
    rollouts: Iterable[Rollout], select: SelectConfig, seed: int, run: str = ""
) -> Selection:
    """Pairs `{prompt, chosen, rejected, margin, reason, …}` in TRL's conversational format.

    Of a group's pairs, `max_per_group` different ones are drawn at random, so that an answer that
    was sampled often is drawn early: what the policy often gets wrong is worth more than its rare
    nonsense, which has the larger margin. The same rollouts, settings and seed give the same pairs.
    `margin` is the difference of rewards, at least 0.
    """
    found = Selection()
    seen: set[tuple[str, ...]] = set()
    for members in _groups(rollouts, select, found):
        pairs = []
        for first, second in combinations(members, 2):
            reason, better, worse = _compare(first, second, select)
            if reason:
                found.dropped[reason] += 1
            else:
                pairs.append((better, worse))
        _order(seed, members).shuffle(pairs)
        kept = 0
        for better, worse in pairs:
            key = (str(_prompt(better)), _text(better), _text(worse))
            if key in seen:
                found.dropped["repeated"] += 1
            elif kept == select.max_per_group:
                found.dropped["over max_per_group"] += 1
            else:
                seen.add(key)
                kept += 1
                found.rows.append(_pair(better, worse, run))
        found.groups_used += kept > 0
    return found


def demonstrations(
    rollouts: Iterable[Rollout], select: SelectConfig, seed: int, run: str = ""
) -> Selection:
    """Answers `{prompt, completion, …}` of at least `min_reward`: rejection sampling for SFT."""
    found = Selection()
    seen: set[tuple[str, str]] = set()
    for members in _groups(rollouts, select, found):
        order = _order(seed, members)
        answers = []
        for member in members:
            key = (str(_prompt(member)), _text(member))
            reason = (
                "below min_reward" if member["reward"] < select.min_reward
                else "flagged" if member["flags"] and not select.flagged
                else "repeated" if key in seen else ""
            )  # fmt: skip
            if reason:
                found.dropped[reason] += 1
                continue
            seen.add(key)
            answers.append((member["reward"], order.random(), member))
        answers.sort(key=lambda answer: answer[:2], reverse=True)
        found.dropped["over max_per_group"] += max(0, len(answers) - select.max_per_group)
        kept = answers[: select.max_per_group]
        found.rows += [_answer(member, run) for _, _, member in kept]
        found.groups_used += bool(kept)
    found.dropped += Counter()  # leaves out what was never dropped
    return found


def _order(seed: int, members: Sequence[Rollout]) -> random.Random:
    """Chance for one group, whatever came before it."""
    return random.Random(f"{seed}/{members[0]['step']}/{members[0]['lease']}")


def _groups(
    rollouts: Iterable[Rollout], select: SelectConfig, found: Selection
) -> Iterable[list[Rollout]]:
    """Usable members of each group, in the order of the store; groups of none are counted only."""
    groups: dict[tuple[int, int], list[Rollout]] = {}
    for row in rollouts:
        found.rollouts += 1
        members = groups.setdefault((row["step"], row["lease"]), [])
        reason = _unusable(row, select)
        if reason:
            found.dropped_rollouts[reason] += 1
        else:
            members.append(row)
    found.groups = len(groups)
    return [members for members in groups.values() if members]


def _unusable(row: Rollout, select: SelectConfig) -> str:
    if any(flag["action"] == "drop" for flag in row["flags"]):
        return "dropped by a detector"
    if select.max_version is not None and row["version"] > select.max_version:
        return "newer than max_version"
    if "completion" in row and row["completion"] is None:
        return "several turns"
    return ""


def _compare(a: Rollout, b: Rollout, select: SelectConfig) -> tuple[str, Rollout, Rollout]:
    """(why this is no pair or an empty string, preferred, other)."""
    reward = a["reward"] - b["reward"]
    gates = _passed(a) - _passed(b)
    better, worse = (a, b) if reward > 0 or (reward == 0 and gates > 0) else (b, a)
    if _text(a) == _text(b):
        return "same text", better, worse
    if reward == 0 and gates == 0:
        return "equally good", better, worse
    if reward * gates < 0:
        return "reward against gates", better, worse
    if abs(reward) < select.min_margin:
        return "below min_margin", better, worse
    if better["flags"] and not select.flagged:
        return "flagged", better, worse
    return "", better, worse


def _passed(row: Rollout) -> int:
    return sum(gate["passed"] for gate in row["gates"])


def _prompt(row: Rollout) -> list[dict[str, str]]:
    """The messages; stores written before prompts were kept have the one user message only."""
    kept = row.get("prompt")
    return list(kept) if kept else [{"role": "user", "content": row["request"]}]


def _text(row: Rollout) -> str:
    completion = row.get("completion")
    return str(row["answer"] if completion is None else completion)


def stopped_at(row: Rollout) -> str:
    """The gate that an answer failed, or `none`."""
    return next((str(gate["gate"]) for gate in row["gates"] if not gate["passed"]), "none")


def _said(row: Rollout) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": _text(row)}]


def _source(row: Rollout) -> Row:
    return {
        "sample": row["sample"],
        "version": row["version"],
        "reward": row["reward"],
        "truth": row["truth"],
        "stopped_at": stopped_at(row),
        "flags": [flag["detector"] for flag in row["flags"]],
        "tokens": row["tokens"],
        "stop_reason": row["stop_reason"],
    }


def _shared(row: Rollout, run: str) -> Row:
    group = {"run": run, "step": row["step"], "lease": row["lease"], "task_id": row["task_id"]}
    ids = row.get("prompt_ids")
    return {"prompt": _prompt(row), "group": group} | ({"prompt_ids": list(ids)} if ids else {})


def _pair(better: Rollout, worse: Rollout, run: str) -> Row:
    margin = better["reward"] - worse["reward"]
    reason = (
        f"reward {better['reward']:g} against {worse['reward']:g}, "
        f"stopped at {stopped_at(better)} against {stopped_at(worse)}"
    )
    row = {
        **_shared(better, run),
        "chosen": _said(better),
        "rejected": _said(worse),
        "margin": margin,
        "reason": reason,
    }
    for side, member in (("chosen", better), ("rejected", worse)):
        row[f"{side}_canonical"] = member["canonical"]
        row[f"{side}_rollout"] = _source(member)
        if member.get("completion_ids"):
            row[f"{side}_ids"] = list(member["completion_ids"])
    return row


def _answer(member: Rollout, run: str) -> Row:
    row = {
        **_shared(member, run),
        "completion": _said(member),
        "completion_rollout": _source(member),
    }
    ids = member.get("completion_ids")
    return row | ({"completion_ids": list(ids)} if ids else {})
