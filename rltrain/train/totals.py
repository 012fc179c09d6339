"""What a step measures, as sums and counts: they add up over micro-batches and over ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rltrain.algo.mismatch import Gaps, described, effective_share, joined


class Totals:
    """Sums, counts and maxima by metric. Tensors stay where they are until `metrics`."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.maxima: dict[str, Tensor] = {}
        self.gaps: list[Gaps] = []
        """Trainer against engine, for what is no mean."""
        self.skipped = 0
        """Optimizer updates left out because the gradient was not finite."""

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Each metric will be the mean over all values ever added under its name."""
        for key, value in values.items():
            total = value.detach().sum()
            self.sums[key] = self.sums[key] + total if key in self.sums else total
            self.counts[key] = self.counts.get(key, 0) + value.numel()

    def largest(self, key: str, values_N: Tensor) -> None:
        """The metric will be the largest value ever given; nothing for none."""
        if values_N.numel():
            top = values_N.detach().max()
            known = self.maxima.get(key)
            self.maxima[key] = top if known is None else torch.maximum(known, top)

    def merge(self, other: Totals) -> None:
        """Add what another micro-batch or rank measured."""
        for key, value in other.sums.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value
            self.counts[key] = self.counts.get(key, 0) + other.counts[key]
        for key, value in other.maxima.items():
            self.largest(key, value)
        self.gaps += other.gaps
        self.skipped += other.skipped

    def total(self, key: str) -> float:
        """The sum itself; 0 if nothing was added."""
        return float(self.sums[key]) if key in self.sums else 0.0

    def metrics(self) -> dict[str, float]:
        """Means and maxima, moved to the host at once. Where weights `part/x` and their squares
        `part/x_sq` were added, `part/ess` is the effective sample size as a share of the tokens."""
        drawn = described(joined(self.gaps)) if self.gaps else {}
        keys = [*self.sums, *self.maxima, *drawn]
        tensors = [*self.sums.values(), *self.maxima.values(), *drawn.values()]
        values = torch.stack([t.float() for t in tensors]).tolist() if tensors else []
        found = {k: v / max(self.counts.get(k, 1), 1) for k, v in zip(keys, values, strict=True)}
        for key in [k for k in found if k.endswith("_sq")]:
            squares = found.pop(key)
            if squares:
                mean = found[key.removesuffix("_sq")]
                found[f"{key.rpartition('/')[0]}/ess"] = effective_share(mean, squares)
        return {**found, "train/skipped": float(self.skipped)}
