"""Before against after on the same held-out tasks, recomputed from the recorded answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rltrain.report.scan import TRUE_AT
from rltrain.report.stats import paired_bootstrap

Rollout = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Held-out tasks evaluated at both ends, by what became of them."""

    fixed: tuple[tuple[Rollout, Rollout], ...]
    broken: tuple[tuple[Rollout, Rollout], ...]
    right: tuple[tuple[Rollout, Rollout], ...]
    """Exact before and after."""
    wrong: tuple[tuple[Rollout, Rollout], ...]
    """Exact neither before nor after."""

    @property
    def count(self) -> int:
        return len(self.fixed) + len(self.broken) + len(self.right) + len(self.wrong)


def is_exact(row: Rollout) -> bool:
    """Executed truth decides; where none can be measured, the evaluation counts the reward."""
    outcome = row["reward"] if row["truth"] is None else row["truth"]
    return bool(outcome >= TRUE_AT)


def pair(before: Sequence[Rollout], after: Sequence[Rollout]) -> Pairs:
    """Join by task and sample. A task that the system lost at either end is left out."""
    kinds: dict[tuple[bool, bool], list[tuple[Rollout, Rollout]]] = {}
    for first, last in _joined(before, after):
        kinds.setdefault((is_exact(first), is_exact(last)), []).append((first, last))
    return Pairs(
        fixed=tuple(kinds.get((False, True), ())),
        broken=tuple(kinds.get((True, False), ())),
        right=tuple(kinds.get((True, True), ())),
        wrong=tuple(kinds.get((False, False), ())),
    )


def _joined(
    before: Sequence[Rollout], after: Sequence[Rollout]
) -> list[tuple[Rollout, Rollout]]:
    old = {(row["task_id"], row["sample"]): row for row in before}
    return [(old[key], row) for row in after if (key := (row["task_id"], row["sample"])) in old]


def deltas(before: Sequence[Rollout], after: Sequence[Rollout], seed: int) -> dict[str, Any]:
    """`delta` (exact) and `hack_delta` (any flag): {mean, ci95, n, seed}, or None without pairs."""
    pairs = _joined(before, after)
    return {
        "delta": _delta([(is_exact(a), is_exact(b)) for a, b in pairs], seed),
        "hack_delta": _delta([(bool(a["flags"]), bool(b["flags"])) for a, b in pairs], seed),
    }


def _delta(pairs: Sequence[tuple[bool, bool]], seed: int) -> dict[str, Any] | None:
    if not pairs:
        return None
    mean, interval = paired_bootstrap([a for a, _ in pairs], [b for _, b in pairs], seed=seed)
    return {"mean": mean, "ci95": list(interval), "n": len(pairs), "seed": seed}


def sample_pairs(pairs: Pairs, *, changed: int, unchanged: int, seed: int) -> list[dict[str, Any]]:
    """Pairs to show, drawn at random with a seed: chosen by nobody.

    Of the changed ones two thirds are fixed and one third broken, as far as there are that many;
    the unchanged ones are right and wrong by halves."""
    generator = random.Random(seed)
    wanted = _split(changed, len(pairs.fixed), len(pairs.broken), 2 / 3)
    kept = _split(unchanged, len(pairs.right), len(pairs.wrong), 1 / 2)
    drawn = [
        ("fixed", pairs.fixed, wanted[0]), ("broken", pairs.broken, wanted[1]),
        ("right", pairs.right, kept[0]), ("wrong", pairs.wrong, kept[1]),
    ]
    return [
        {"kind": kind, "before": first, "after": last}
        for kind, pool, count in drawn
        for first, last in generator.sample(pool, count)
    ]


def _split(total: int, first: int, second: int, share: float) -> tuple[int, int]:
    """How many of two pools: `share` of the first, the rest filled from whichever has more."""
    left = min(first, round(total * share))
    right = min(second, total - left)
    return min(first, total - right), right
