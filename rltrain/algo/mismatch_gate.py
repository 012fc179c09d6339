"""When a measured mismatch counts: thresholds, patience, and what is due. Pure.

    metrics of a step -> beyond which limits? -> how many steps in a row? -> warn, correct, stop
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rltrain.config.precision import MismatchConfig

LEVELS = ("warn", "correct", "stop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A level that was reached at this step."""

    level: str
    """One of `LEVELS`."""
    metric: str
    """Full name of the metric that has been beyond its limit for the longest."""
    value: float
    limit: float
    steps: int
    """Steps in a row."""

    def sentence(self) -> str:
        return (
            f"{self.metric} is {self.value:.3g}, for {self.steps} step(s) in a row beyond "
            f"{self.limit:g} (mismatch.{self.level})"
        )


class Thresholds:
    """Counts steps beyond limits. Each level is reached once; a step without a metric (nothing was
    trained on) neither counts for a limit nor breaks its row."""

    def __init__(self, config: MismatchConfig) -> None:
        self.patience = config.patience
        self.limits = {level: getattr(config, level).limits() for level in LEVELS}
        self.rows: dict[str, int] = {}
        """`level:metric` -> steps in a row beyond the limit."""
        self.reached: set[str] = set()

    def observe(self, metrics: Mapping[str, float]) -> list[Reached]:
        """The levels that this step's metrics bring about, mildest first."""
        found = []
        for level, limits in self.limits.items():
            rows = {m: self._count(f"{level}:{m}", beyond(metrics[m], limit))
                    for m, limit in limits.items() if m in metrics}  # fmt: skip
            longest = max(rows, key=rows.__getitem__, default=None)
            if longest is None or rows[longest] < self.patience or level in self.reached:
                continue
            self.reached.add(level)
            found.append(
                Reached(
                    level=level, metric=longest, value=metrics[longest], limit=limits[longest],
                    steps=rows[longest],
                )
            )  # fmt: skip
        return found

    def _count(self, key: str, over: bool) -> int:
        self.rows[key] = self.rows.get(key, 0) + 1 if over else 0
        return self.rows[key]

    def forget(self, level: str) -> None:
        """Begin a level anew: whoever continues a stopped run gets its patience again."""
        self.reached.discard(level)
        self.rows = {k: n for k, n in self.rows.items() if not k.startswith(f"{level}:")}

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"rows": self.rows, "reached": sorted(self.reached)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; limits may be others now."""
        self.rows = {str(k): int(n) for k, n in state["rows"].items()}
        self.reached = set(state["reached"])


def beyond(value: float, limit: float) -> bool:
    """Whether |value| exceeds the limit. NaN does: nothing is known to be right."""
    return math.isnan(value) or abs(value) > limit
