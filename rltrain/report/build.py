"""report.html: one file with everything in it, that opens from a disk without a network.

    run directory -> load, scan -> summary -> figures, tables -> template -> report.html

Policy text is hostile. Three things keep it inert: the template escapes everything, JSON blocks
carry no `<`, and a content security policy lets only our own two scripts run (by their hashes) and
nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml  # type: ignore[import-untyped,unused-ignore]
from markupsafe import Markup

from rltrain.report import tables, text
from rltrain.report.audit import audit
from rltrain.report.data import Run, load
from rltrain.report.figures import Curves
from rltrain.report.headline import alarms, headline, tiles, wall_s
from rltrain.report.health import all_figures
from rltrain.report.interruptions import story
from rltrain.report.scan import Scan, scan
from rltrain.report.summary import summary_of
from rltrain.track.files import write_text

ASSETS = Path(__file__).parent / "assets"
POSTER = ("reward-truth", "funnel", "hacks")
_HEALTH = (
    "timeline", "staleness", "mismatch", "scaling", "entropy", "lengths", "shares", "optimizer",
    "critic", "preference", "margins",
)  # fmt: skip


def write_report(run_dir: Path) -> Path:
    """Write report.html, whole or not at all; returns its path.

    Renders whatever the run left behind and says what is missing. Raises `UserError` if there is no
    such run directory."""
    path = run_dir / "report.html"
    run = load(run_dir)
    write_text(path, _render("report.html.j2", _context(run, scan(run_dir))))
    return path


def write_poster(run_dir: Path, path: Path) -> Path:
    """The headline with three charts on one page, for a picture (see `png.py`)."""
    run = load(run_dir)
    context = _context(run, scan(run_dir))
    context["figures"] = {name: fig for name, fig in context["figures"].items() if name in POSTER}
    context["data"] = _data(context["figures"])
    write_text(path, _render("poster.html.j2", context))
    return path


def _context(run: Run, found: Scan) -> dict[str, Any]:
    summary = summary_of(run, found)
    figures = all_figures(run)
    took_s = wall_s(run)
    return {
        "name": run.name,
        "summary": summary,
        "headline": headline(summary, took_s),
        "alarms": alarms(summary),
        "tiles": tiles(run, summary, took_s),
        "figures": figures,
        "note": Curves(run.rows).note if run.rows else "",
        "health": [figures[name] for name in _HEALTH if name in figures],
        "audit": tables.verdict(audit(run.path, hashed=False)),
        "interruptions": story(run),
        "data": _data(figures),
        "hacks": tables.hacks(run, found),
        "pairs": tables.pairs(run),
        "judges": tables.judge(summary),
        "learned_from": tables.learned_from(summary),
        "ledger": tables.ledger(summary),
        "timing": tables.timing(summary),
        "checks": tables.checks(summary),
        "events": tables.events(run),
        "provenance": tables.provenance(summary),
        "config": yaml.safe_dump(run.config, sort_keys=False) if run.config else "",
    }


def _data(figures: Mapping[str, Any]) -> Markup:
    return json_block({name: figure.spec() for name, figure in figures.items()})


def json_block(value: Any) -> Markup:
    """JSON that is safe inside a <script> element: no `<`, so that nothing in it can end it."""
    written = json.dumps(value, allow_nan=False)  # ASCII only: U+2028 and the like are escaped too
    for character in "<>&":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return Markup(written)


def _render(template: str, context: Mapping[str, Any]) -> str:
    from plotly.offline import get_plotlyjs  # half a second, which `stats` should not cost

    plotly, page = _script(get_plotlyjs()), _script(_asset("page.js"))
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in (plotly, page))
    assets = {
        "plotly": Markup(plotly),
        "page": Markup(page),
        "style": Markup(_asset("style.css")),
        "script_hashes": hashes,
    }
    return _templates().get_template(template).render(**context, **assets)


def _script(source: str) -> str:
    """Our own code, checked for the one thing that would end its element early."""
    assert "</script" not in source.lower(), "a script must not contain its own end tag"
    # The browser hashes the element's text after turning \r\n into \n; so do we.
    return source.replace("\r\n", "\n").replace("\r", "\n")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    for filter_ in (
        text.percent, text.points, text.decimal, text.integer, text.duration, text.visible,
        text.words,
    ):
        environment.filters[filter_.__name__] = filter_
    return environment
