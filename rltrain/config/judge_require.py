"""The release gate of a judge: what a calibration must have shown before it may reward."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from rltrain.config.base import Section

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
LEAST = ("kappa", "share_of_ceiling")
MOST = ("master_key_fpr", "position_flip")


class JudgeRequire(Section):
    """Thresholds; None asks for nothing. See docs/calibration.md."""

    kappa: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None
    """Least Cohen's kappa with the adjudicated labels."""
    share_of_ceiling: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Least kappa with the raters, as a share of the raters' with one another."""
    alt_test: Share | None = None
    """The alternative annotator test must be passed at this epsilon, or a smaller one."""
    master_key_fpr: Share | None = None
    """Greatest share that any master key is accepted, through the run's gates."""
    position_flip: Share | None = None
    """Greatest share of pairs whose winner changes with the order; for judges that compare."""
    items: PositiveInt = 30
    """Least labelled items with a verdict, if anything is asked for."""
    people: bool = False
    """Ratings by synthetic raters do not count."""

    @property
    def asks(self) -> bool:
        """Whether anything is asked for."""
        names = (*LEAST, *MOST, "alt_test")
        return self.people or any(getattr(self, name) is not None for name in names)

    def unmet(self, measures: Mapping[str, Any]) -> list[str]:
        """What a calibration falls short of, one phrase each. measures: `items`, `kappa`,
        `share_of_ceiling`, `alt_test` (epsilon -> passed), `master_key_fpr`, `position_flip`,
        `compares`, `synthetic`; None or nan for what was not measured, which meets nothing."""
        if not self.asks:
            return []
        found = []
        if measures["items"] < self.items:
            found.append(f"{measures['items']} labelled items, at least {self.items} are asked for")
        if self.people and measures["synthetic"]:
            found.append("its raters are synthetic, people are asked for")
        for name in (*LEAST, *MOST):
            if name == "position_flip" and not measures["compares"]:
                continue
            limit, value = getattr(self, name), measures[name]
            if limit is None:
                continue
            if value is None or not math.isfinite(value):
                found.append(f"{name} was not measured")
            elif value < limit if name in LEAST else value > limit:
                side = "least" if name in LEAST else "most"
                found.append(f"{name} is {value:.3f}, at {side} {limit:g} is asked for")
        passed = [float(eps) for eps, ok in measures["alt_test"].items() if ok]
        if self.alt_test is not None and min(passed, default=math.inf) > self.alt_test:
            found.append(f"alt_test is not passed at epsilon {self.alt_test:g}")
        return found
