"""The charts: metric rows -> plotly figures as plain dicts, drawn by the page.

Each says in one line what good looks like. Nothing is smoothed without the raw line behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rltrain.report.data import Run
from rltrain.track.jsonl import Row

Trace = dict[str, Any]

BLUE, GREEN, RED, ORANGE = "#3e7bdc", "#2f9e6b", "#e0484d", "#dd8a1b"
PURPLE, TEAL, GREY, PINK = "#8b5cc7", "#1a9caf", "#8a8f98", "#c9508f"
PALETTE = (RED, ORANGE, PURPLE, TEAL, PINK, BLUE, GREEN, "#9a7b4f")
DIVERGENCE = "reward_truth_divergence"
_MOST_POINTS = 1_000
_SMOOTH_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One chart with what is written around it."""

    id: str
    title: str
    caption: str
    data: list[Trace]
    layout: dict[str, Any]
    height: int = 300
    wide: bool = False

    def spec(self) -> dict[str, Any]:
        """What plotly draws. It reads a little HTML in every text (links, for one), and names and
        texts come from configs, errors and policies: so no text has a `<`."""
        spec: dict[str, Any] = _inert({"data": self.data, "layout": self.layout})
        return spec


def _inert(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _inert(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_inert(item) for item in value]
    return value.replace("<", "\u2039").replace(">", "\u203a") if isinstance(value, str) else value


class Curves:
    """The rows of a run, thinned to what a screen can show, and traces made from them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.bin = max(1, math.ceil(len(rows) / _MOST_POINTS))
        self.rows = [_average(rows[at: at + self.bin]) for at in range(0, len(rows), self.bin)]
        self.steps = [row["step"] for row in self.rows]
        self.smooth = max(1, round(len(self.rows) * _SMOOTH_SHARE))

    def has(self, *names: str) -> bool:
        return any(name in row for row in self.rows for name in names)

    def values(self, name: str, absent: float | None = None) -> list[float | None]:
        """Per step; None (a gap) where it was not measured or is not finite."""
        found = (row.get(name, absent) for row in self.rows)
        return [value if value is not None and math.isfinite(value) else None for value in found]

    def line(self, name: str, label: str, color: str, **style: Any) -> list[Trace]:
        """The raw values, thin, behind their rolling mean; raw alone if there is too little, or if
        `smooth` is False: a mean of maxima would be below the largest."""
        smooth = style.pop("smooth", True) and self.smooth > 1
        values = self.values(name, style.pop("absent", None))
        if all(value is None for value in values):
            return []
        line = {"color": color, "width": 2} | style.pop("line", {})
        if not smooth:
            return [_trace(self.steps, values, label, line) | style]
        bold = _trace(self.steps, _rolling(values, self.smooth), label, line) | style
        raw = _trace(self.steps, values, label, {"color": color, "width": 1}) | style
        return [raw | {"opacity": 0.3, "showlegend": False, "hoverinfo": "skip"}, bold]

    @property
    def note(self) -> str:
        """What was done to the curves, in one sentence; empty if nothing was."""
        notes = []
        if self.bin > 1:
            notes.append(f"each point is the mean of {self.bin} steps")
        if self.smooth > 1:
            notes.append(f"bold: mean over {self.smooth} points, thin: raw")
        return f"Curves: {'; '.join(notes)}." if notes else ""


def _average(rows: Sequence[Row]) -> Row:
    names = {name for row in rows for name in row}
    return {name: _mean([row[name] for row in rows if name in row]) for name in names}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _trace(x: Sequence[float], y: Sequence[Any], name: str, line: dict[str, Any]) -> Trace:
    return {
        "type": "scatter", "mode": "lines" if len(x) > 1 else "markers",
        "x": list(x), "y": list(y), "name": name, "line": line,
    }


def _rolling(values: Sequence[float | None], window: int) -> list[float | None]:
    """Mean of the last `window` measured values up to each point."""
    result: list[float | None] = []
    for end in range(1, len(values) + 1):
        recent = [value for value in values[max(0, end - window): end] if value is not None]
        result.append(_mean(recent) if recent else None)
    return result


def layout(**changes: Any) -> dict[str, Any]:
    """What all charts share, with changes merged in one level deep."""
    base: dict[str, Any] = {
        "xaxis": {"title": {"text": "step"}, "automargin": True},
        "yaxis": {"automargin": True, "rangemode": "tozero"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 48, "r": 14, "t": 8, "b": 42},
        "hovermode": "x unified",
    }
    for name, value in changes.items():
        base[name] = base[name] | value if isinstance(base.get(name), dict) else value
    return base


SHARE = {"tickformat": ".0%", "rangemode": "tozero"}


def reward_truth(run: Run, curves: Curves) -> Figure | None:
    data = curves.line("reward/mean", "reward (trained on)", BLUE)
    if curves.values("reward/judged_mean") != curves.values("reward/mean"):
        data += curves.line(
            "reward/judged_mean", "reward before screening", ORANGE, line={"dash": "dot"}
        )
    data += curves.line("truth/mean", "truth (executed)", GREEN)
    if not data:
        return None
    shapes = [
        {
            "type": "rect", "xref": "x", "yref": "paper", "x0": first - 0.5, "x1": last + 0.5,
            "y0": 0, "y1": 1, "fillcolor": RED, "opacity": 0.14, "line": {"width": 0},
        }
        for first, last in _stretches(run, f"alarm/{DIVERGENCE}")
    ]
    shading = " Red stretches: the divergence alarm was on." if shapes else ""
    return Figure(
        id="reward-truth", title="Reward against truth", height=360, wide=True, data=data,
        layout=layout(yaxis=SHARE | {"range": [0, 1.02]}, shapes=shapes),
        caption="Good: both rise together. Reward that rises while truth does not is being gamed."
        + shading,
    )


def _stretches(run: Run, name: str) -> list[tuple[int, int]]:
    """First and last step of every stretch of logged steps in which a metric is above 0."""
    found: list[tuple[int, int]] = []
    on = False
    for row in run.rows:
        step = int(row["step"])
        if row.get(name, 0.0) > 0:
            found = [*found[:-1], (found[-1][0], step)] if on else [*found, (step, step)]
        on = row.get(name, 0.0) > 0
    return found


def funnel(run: Run) -> Figure | None:
    """Share of all rollouts that passed each gate and all before it, first against last window."""
    gates = run.gates
    if not gates:
        return None
    size = run.window
    labels = ["sampled", *gates]
    data = []
    ends = (("first", run.rows[:size], GREY), ("last", run.rows[-size:], BLUE))
    for name, rows, color in ends:
        shares = [1.0, *(_passed(rows, gate) for gate in gates)]
        data.append({
            "type": "bar", "orientation": "h", "y": labels, "x": shares, "textposition": "outside",
            "name": f"{name} {size} step{'s' * (size > 1)}", "marker": {"color": color},
            "text": [f"{100 * share:.1f} %" for share in shares], "cliponaxis": False,
            "hovertemplate": "%{y}: %{x:.1%}",
        })
    return Figure(
        id="funnel", title="Gates: who gets how far", height=funnel_height(run), data=data,
        layout=layout(
            xaxis={"title": {"text": "share of all rollouts"}, "tickformat": ".0%",
                   "range": [0, 1.2], "tickvals": [0, 0.25, 0.5, 0.75, 1]},
            yaxis={"autorange": "reversed"}, hovermode="closest", barmode="group", bargap=0.25,
        ),
        caption="Share of all rollouts that passed a gate and every gate before it. "
        "Good: the last bars are longer, above all at the bottom.",
    )


def funnel_height(run: Run) -> int:
    """Pixels; the chart beside the funnel takes the same."""
    return 70 + 52 * (1 + len(run.gates))


def _passed(rows: Sequence[Row], gate: str) -> float:
    """Mean over steps of reached x pass; a step in which nobody reached the gate counts as 0."""
    products = [
        row.get(f"gate/{gate}/reached", 0.0) * row.get(f"gate/{gate}/pass", 0.0) for row in rows
    ]
    return _mean(products)


def hack_rates(run: Run, curves: Curves) -> Figure | None:
    if not curves.has("flag/any"):
        return None
    data = curves.line("flag/any", "any", GREY, line={"dash": "dot"})
    for place, name in enumerate(run.detectors):
        color = PALETTE[place % len(PALETTE)]
        data += curves.line(f"flag/{name}", name, color, absent=0.0)
    return Figure(
        id="hacks", title="Hack rates", data=data, height=funnel_height(run),
        layout=layout(yaxis=SHARE),
        caption="Share of all rollouts that a detector flagged. Good: falls to zero; a line that "
        "climbs is a hack being learned.",
    )


def tiers(run: Run) -> Figure | None:
    """Exact answers by tier of difficulty, before against after."""
    sides = [
        (name, {str(tier): _exact(value) for tier, value in by_tier.items()}, color)
        for name, part, color in (("before", "eval_before", GREY), ("after", "eval_after", BLUE))
        if isinstance(by_tier := run.facts[part].get("by_tier"), dict) and by_tier
    ]
    if not sides:
        return None
    data = [
        {
            "type": "bar", "name": name, "x": list(values), "y": list(values.values()),
            "marker": {"color": color}, "hovertemplate": "%{x}: %{y:.1%}",
        }
        for name, values, color in sides
    ]
    return Figure(
        id="tiers", title="Exact answers by tier", data=data, height=260, wide=True,
        layout=layout(xaxis={"title": {"text": "tier"}, "type": "category"}, barmode="group",
                       hovermode="closest", yaxis=SHARE | {"range": [0, 1.02]}),
        caption="Held-out tasks by difficulty. Good: every tier gains; a gain in the easiest "
        "alone is little.",
    )


def _exact(value: Any) -> float | None:
    exact = value.get("exact") if isinstance(value, dict) else value
    return float(exact) if isinstance(exact, int | float) else None
