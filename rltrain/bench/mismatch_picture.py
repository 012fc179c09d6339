"""Mismatch by precision, as a page that opens without a network and as a picture of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rltrain.errors import UserError
from rltrain.report.figures import BLUE, GREEN, ORANGE
from rltrain.report.png import screenshot

WIDTH, HEIGHT = 900, 420
COLORS = (BLUE, ORANGE, GREEN)


def draw(facts: Mapping[str, Any], html: Path) -> list[Path]:
    """Write the page, and beside it a PNG where there is a browser; returns what was written."""
    from plotly.offline import get_plotlyjs

    figure = json.dumps(_figure(facts)).replace("<", "\\u003c")
    html.write_text(
        f"<!doctype html><meta charset=utf-8><title>mismatch</title><script>{get_plotlyjs()}"
        f"</script><body style='margin:0;background:#fff'><div id=c></div><script>"
        f"const f={figure};Plotly.newPlot('c',f.data,f.layout,{{displayModeBar:false}})</script>",
        encoding="utf-8",
    )
    try:
        return [html, screenshot(html, html.with_suffix(".png"), WIDTH, HEIGHT)]
    except UserError:
        return [html]


def _figure(facts: Mapping[str, Any]) -> dict[str, Any]:
    names = list(facts["precisions"])
    pairs = list(next(iter(facts["precisions"].values()))["pairs"])
    data = []
    for pair, color in zip(pairs, COLORS, strict=True):
        found = [facts["precisions"][name]["pairs"][pair] for name in names]
        values = [one["mean_abs_logprob"] for one in found]
        ends = [one["mean_abs_logprob_ci95"] for one in found]
        data.append(
            {
                "type": "bar", "x": names, "y": values,
                "name": pair if any(values) else f"{pair} (all 0)",  # a log axis has no 0
                "marker": {"color": color},
                "error_y": {
                    "type": "data", "symmetric": False,
                    "array": [high - v for v, (_, high) in zip(values, ends, strict=True)],
                    "arrayminus": [v - low for v, (low, _) in zip(values, ends, strict=True)],
                },
            }
        )  # fmt: skip
    layout = {
        "width": WIDTH, "height": HEIGHT, "barmode": "group",
        "font": {"family": "system-ui, sans-serif", "size": 14},
        "title": {"text": "Learner against engine: mean |difference of log-probabilities|"},
        "yaxis": {"type": "log", "exponentformat": "power", "dtick": 1,
                  "title": {"text": "nats per token"}},
        "legend": {"orientation": "h", "x": 0, "y": -0.12},
        "margin": {"l": 70, "r": 16, "t": 52, "b": 60},
    }  # fmt: skip
    return {"data": data, "layout": layout}
