"""Reward against truth, arm beside arm, drawn by a real browser."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rltrain.errors import UserError
from rltrain.report.figures import BLUE, GREEN, RED, Curves
from rltrain.report.png import screenshot
from rltrain.rundir import RunDir
from rltrain.track import read_metrics

WIDTH, HEIGHT = 1280, 420
LINES = (
    ("reward/mean", "reward", BLUE), ("truth/mean", "truth (executed)", GREEN),
    ("flag/any", "flagged as hacks", RED),
)  # fmt: skip


def draw(arms: Sequence[tuple[str, Path]], png: Path) -> None:
    """One panel per arm. Without a browser it says so and draws nothing."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "production.html"
        page.write_text(_page(arms), encoding="utf-8")
        try:
            screenshot(page, png, WIDTH, HEIGHT)
            print(f"written: {png}")
        except UserError as error:
            print(f"no picture: {error}")


def _page(arms: Sequence[tuple[str, Path]]) -> str:
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    data, layout = _figure(arms)
    return (
        f"<!doctype html><meta charset=utf-8><script>{get_plotlyjs()}</script>"
        f"<body style='margin:0;background:#fff'><div id=c></div><script>Plotly.newPlot('c',"
        f"{json.dumps(data)},{json.dumps(layout)},{{staticPlot:true}})</script>"
    )


def _figure(arms: Sequence[tuple[str, Path]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "width": WIDTH, "height": HEIGHT, "font": {"family": "system-ui, sans-serif", "size": 14},
        "grid": {"rows": 1, "columns": len(arms), "pattern": "independent"},
        "legend": {"orientation": "h", "x": 0, "y": -0.14},
        "margin": {"l": 48, "r": 16, "t": 44, "b": 64}, "annotations": [],
    }  # fmt: skip
    for column, (title, path) in enumerate(arms, start=1):
        axis = "" if column == 1 else str(column)
        curves = Curves(read_metrics(RunDir(path).metrics).rows)
        for name, label, color in LINES:
            lines = curves.line(name, label, color)
            for line in lines:
                line |= {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "legendgroup": name}
                line["showlegend"] = column == 1 and line is lines[-1]
            data += lines
        layout[f"yaxis{axis}"] = {"range": [0, 1.02], "tickformat": ".0%"}
        layout[f"xaxis{axis}"] = {"title": {"text": "step", "standoff": 4}}
        layout["annotations"].append({
            "text": f"<b>{title}</b>", "xref": f"x{axis} domain", "yref": f"y{axis} domain",
            "x": 0, "y": 1.1, "showarrow": False, "xanchor": "left",
        })  # fmt: skip
    return data, layout
