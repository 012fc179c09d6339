"""What broke while a run went on: restarts, resumes and outages, on one line of time.

    events.jsonl, metrics.jsonl -> interruptions, gaps between steps -> a chart and two sentences
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from rltrain.report import text
from rltrain.report.data import Run
from rltrain.report.figures import BLUE, GREY, ORANGE, PURPLE, RED, Figure, layout
from rltrain.track.redact import redact_text

GAP_FACTOR, GAP_S = 4.0, 2.0
"""A pause between two steps is a gap if it is this many times the median one, and this long."""
_OUT = re.compile(r"^(?P<name>.+?) cannot be reached: ")
_BACK = re.compile(r"^(?P<name>.+?) answers again after (?P<seconds>[\d.]+) s")
_ROWS = ("steps", "outages", "restarts", "resumes")
_COLORS = {"restarts": ORANGE, "resumes": PURPLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """One thing that happened to the run, in seconds since 1970."""

    kind: str
    """`restarts`, `resumes` or `outages`."""
    begin: float
    end: float
    """Of an outage; else the same as `begin`."""
    text: str


def interruptions(run: Run) -> list[Interruption]:
    """In the order in which they began. An outage that nobody saw end lasts to the last event."""
    found: list[Interruption] = []
    open_: dict[tuple[str, str], tuple[float, str]] = {}
    last = max(_times(run), default=0.0)
    for event in run.events:
        at, kind = text.number(event.get("time")), event.get("kind")
        if at is None:
            continue
        said = redact_text(f"{event.get('process', '')}: {event.get('text', '')}")
        who, what = str(event.get("process", "")), str(event.get("text", ""))
        if kind in ("restart", "resume"):
            found.append(Interruption(kind=f"{kind}s", begin=at, end=at, text=said))
        elif kind == "outage" and (out := _OUT.match(what)):
            open_.setdefault((who, out["name"]), (at, said))
        elif kind == "outage_over" and (back := _BACK.match(what)):
            _, first = open_.pop((who, back["name"]), (at, said))
            begin = at - float(back["seconds"])
            found.append(Interruption(kind="outages", begin=begin, end=at, text=first))
    found += [
        Interruption(kind="outages", begin=at, end=max(at, last), text=f"{said} (to the end)")
        for at, said in open_.values()
    ]
    return sorted(found, key=lambda one: one.begin)


def _times(run: Run) -> list[float]:
    times = [row["time"] for row in run.rows if "time" in row]
    return times + [at for event in run.events if (at := text.number(event.get("time")))]


def gaps(times: Sequence[float]) -> list[tuple[float, float]]:
    """Pauses between steps that stand out, as (begin, end). times: of the steps, ascending."""
    pauses = [(a, b) for a, b in pairwise(times) if b >= a]
    if len(pauses) < 2:
        return []
    usual = median(b - a for a, b in pauses)
    return [(a, b) for a, b in pauses if b - a >= max(GAP_S, GAP_FACTOR * usual)]


def story(run: Run) -> dict[str, Any]:
    """What the page says about interruptions: counts by kind, and how long no step was done."""
    found = interruptions(run)
    pauses = gaps([row["time"] for row in run.rows if "time" in row])
    return {
        "counts": Counter(one.kind for one in found),
        "out_s": _covered([(one.begin, one.end) for one in found if one.kind == "outages"]),
        "gaps": len(pauses),
        "longest_s": max((b - a for a, b in pauses), default=None),
    }


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds in at least one span: several workers tell of the same outage. spans: by begin."""
    total, reached = 0.0, float("-inf")
    for begin, end in spans:
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def timeline(run: Run) -> Figure | None:
    """Steps as ticks along the time of the run, what went wrong above them, gaps shaded."""
    found = interruptions(run)
    times = [row["time"] for row in run.rows if "time" in row]
    if not found:
        return None
    start = min([*times[:1], found[0].begin])

    def minute(at: float) -> float:
        return (at - start) / 60

    steps: dict[str, Any] = {
        "type": "scatter", "mode": "markers", "name": "steps", "y": ["steps"] * len(times),
        "x": [minute(at) for at in times], "text": [_step(row) for row in run.rows],
        "marker": {"symbol": "line-ns-open", "size": 14, "color": BLUE},
        "hovertemplate": "%{text}: %{x:.2f} min",
    }
    data = [steps, _outages([one for one in found if one.kind == "outages"], minute)]
    for kind, color in _COLORS.items():
        of_kind = [one for one in found if one.kind == kind]
        data.append({
            "type": "scatter", "mode": "markers", "name": kind, "y": [kind] * len(of_kind),
            "x": [minute(one.begin) for one in of_kind], "text": [_short(one) for one in of_kind],
            "marker": {"symbol": "diamond", "size": 11, "color": color},
            "hovertemplate": "%{x:.2f} min: %{text}",
        })
    shapes = [
        {
            "type": "rect", "xref": "x", "yref": "paper", "x0": minute(a), "x1": minute(b),
            "y0": 0, "y1": 1, "fillcolor": GREY, "opacity": 0.2, "line": {"width": 0},
            "layer": "below",
        }
        for a, b in gaps(times)
    ]
    return Figure(
        id="timeline", title="Interruptions", data=data, height=230, wide=True,
        layout=layout(
            xaxis={"title": {"text": "minutes since the first step"}}, hovermode="closest",
            yaxis={"type": "category", "categoryorder": "array", "categoryarray": list(_ROWS),
                   "range": [-0.5, len(_ROWS) - 0.5]},
            shapes=shapes, showlegend=False,
        ),
        caption="One tick per step. Grey: no step was done for much longer than usual. "
        "Good: an interruption costs a gap and nothing else.",
    )


def _outages(found: Sequence[Interruption], minute: Any) -> dict[str, Any]:
    """One thick line per outage; None lifts the pen."""
    x: list[float | None] = []
    said: list[str | None] = []
    for one in found:
        x += [minute(one.begin), minute(one.end), None]
        said += [_short(one), _short(one), None]
    return {
        "type": "scatter", "mode": "lines+markers", "name": "outages", "x": x, "text": said,
        "y": ["outages" if value is not None else None for value in x],
        "line": {"color": RED, "width": 7}, "marker": {"size": 7, "color": RED},
        "hovertemplate": "%{x:.2f} min: %{text}",
    }


def _short(one: Interruption) -> str:
    return text.visible(one.text, 160)


def _step(row: Mapping[str, float]) -> str:
    return f"step {int(row['step'])}"
