"""report.html as text: what it says, what it keeps inert, what it does when things are missing."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import pytest

from rltrain.errors import UserError
from rltrain.report import png, write_report
from rltrain.report.build import json_block
from rltrain.report.data import load
from rltrain.report.health import all_figures
from rltrain.report.scan import pick_hacks
from rltrain.report.text import decimal, visible
from rltrain.track import read_fact, write_fact
from tests.report.synthetic import HOSTILE

Copy = Callable[[], Path]


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return write_report(finished).read_text()


def _own(page: str) -> str:
    """The page without plotly.js, which holds strings of every kind."""
    longest = max(re.findall(r"<script>.*?</script>", page, re.S), key=len)
    return page.replace(longest, "")


def test_the_page_says_what_happened_and_shows_the_alarm(page: str) -> None:
    text = html.unescape(page)
    assert re.search(r"Exact answers rose from [\d.]+\xa0% to [\d.]+\xa0% on the same 120", text)
    assert "Alarm: reward truth divergence in 4 steps between 12 and 15." in text
    assert "Self-check failed" not in text


def test_the_page_fits_into_six_megabytes_and_fetches_nothing(page: str) -> None:
    assert len(page.encode()) < 6_000_000
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", _own(page))


def test_hostile_text_is_inert(page: str) -> None:
    own = _own(page)
    assert "<script>window.hacked" not in own
    assert "<img src=x" not in own
    assert "&lt;script&gt;window.hacked" in own
    assert "{{ 7*7 }}" in html.unescape(own)
    assert "\u202e" not in own
    assert "⟨U+202E⟩" in own
    assert own.count("<script") == own.count("</script>") == 2


def test_json_blocks_cannot_end_their_element_and_keep_their_value() -> None:
    block = json_block({"x": HOSTILE, "line": "\u2028"})
    assert not set("<>&\u2028") & set(block)
    assert json.loads(block)["x"] == HOSTILE


def test_secrets_of_the_config_are_hidden(page: str) -> None:
    assert "sk-do-not-show-me" not in page
    assert "(hidden)" in page


def test_plotly_accepts_every_figure(finished: Path) -> None:
    figures = all_figures(load(finished))
    assert len(figures) == 12
    for figure in figures.values():
        go.Figure(figure.spec())  # raises on an unknown property
        json.dumps(figure.spec(), allow_nan=False)


def test_a_violated_ledger_is_shown_in_red(copy: Copy) -> None:
    run = copy()
    ledger = read_fact(run, "ledger")
    assert ledger is not None
    write_fact(run, "ledger", ledger | {"consumed": ledger["consumed"] - 5})
    text = write_report(run).read_text()
    assert "Self-check failed: ledger conserved." in text
    assert "It does not add up." in text
    assert "VIOLATED" in text


def test_a_crashed_run_is_reported_as_one(copy: Copy) -> None:
    run = copy()
    for path in (*(run / "facts").iterdir(), *(run / "eval").iterdir()):
        path.unlink()
    with (run / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 41, "rew')
    text = write_report(run).read_text()
    assert "The run is not complete: 40 of 40 steps" in text
    assert "facts/ledger.json is missing" in text
    assert "1 torn line(s)" in text
    assert 'id="chart-reward-truth"' in text


def test_an_empty_run_directory_still_gives_a_page(tmp_path: Path) -> None:
    text = write_report(tmp_path).read_text()
    assert "No step was logged" in text
    assert "config.yaml is missing" in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_examples_of_hacks_are_early_and_late_and_not_all_the_same() -> None:
    rows = [{"step": step, "lease": step, "sample": 0, "answer": "same"} for step in range(50)]
    rows.insert(10, {"step": 9, "lease": 99, "sample": 0, "answer": "other"})
    shown = [(row["step"], row["answer"], row["when"]) for row in pick_hacks(rows, 4)]
    assert shown == [
        (0, "same", "early"), (9, "other", "early"), (49, "same", "late"),
    ]


def test_a_small_number_is_not_shown_as_zero_and_an_unknown_one_not_as_a_number() -> None:
    assert decimal(0.00002) == "2.0e-05"
    assert decimal(0.0) == "0.000"
    assert decimal(None) == decimal(float("nan")) == "n/a"


def test_cut_text_says_how_much_was_cut() -> None:
    assert visible("x" * 1600).endswith("x … (100 more characters)")
    assert visible("a\x00b\u200bc") == "a⟨U+0000⟩b⟨U+200B⟩c"


def test_a_picture_without_a_browser_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png, "BROWSERS", ("no-such-browser",))
    with pytest.raises(UserError, match="apt-get install chromium"):
        png.screenshot(tmp_path / "a.html", tmp_path / "a.png", 100, 100)
