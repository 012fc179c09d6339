"""Restarts, resumes and outages as the report tells them, with numbers worked by hand."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from rltrain.report import write_report
from rltrain.report.data import load
from rltrain.report.interruptions import gaps, interruptions, story, timeline
from tests.report.ledgers import change, write_sound_run
from tests.report.synthetic import HOSTILE

START = 1_700_000_000.0
STEPS = (0, 2, 4, 6, 40, 42, 44, 46)
"""Seconds at which the steps were logged: one gap, from 6 to 40."""
EVENTS = (
    (8, "worker-0", "outage", "engine http://127.0.0.1:9 cannot be reached: refused"),
    (9, "engine", "restart", "was killed by SIGKILL; restarted (1 of 5) after 0.5 s"),
    (9, "worker-1", "outage", "engine http://127.0.0.1:9 cannot be reached: refused"),
    (17, "worker-0", "outage_over", "engine http://127.0.0.1:9 answers again after 10.0 s"),
    (30, "front end", "resume", f"continued with 4 of 8 steps {HOSTILE}"),
    (31, "learner", "alarm", "step 4: not an interruption"),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = write_sound_run(tmp_path / "run", steps=8, planned=8)
    rows = [{"step": n, "time": START + at, "loss": 0.5} for n, at in enumerate(STEPS, start=1)]
    (made / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [
        {"time": START + at, "process": process, "kind": kind, "text": text}
        for at, process, kind, text in EVENTS
    ]
    (made / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return made


def test_an_outage_lasts_from_the_first_failure_to_the_first_answer(run: Path) -> None:
    found = interruptions(load(run))
    assert [(one.kind, one.begin - START, one.end - START) for one in found] == [
        ("outages", 7, 17),  # ended at 17 after 10 s
        ("restarts", 9, 9),
        ("outages", 9, 46),  # nobody saw it end: to the last thing that was logged
        ("resumes", 30, 30),
    ]
    assert found[2].text.endswith("(to the end)")


def test_a_gap_is_a_pause_far_longer_than_usual() -> None:
    assert gaps([float(at) for at in STEPS]) == [(6.0, 40.0)]
    assert gaps([0.0, 1.0, 2.0, 3.0]) == []
    assert gaps([0.0, 0.1, 0.2, 1.9]) == []  # below two seconds
    assert gaps([]) == gaps([1.0]) == gaps([1.0, 90.0]) == []


def test_the_story_counts(run: Path) -> None:
    told = story(load(run))
    assert dict(told["counts"]) == {"outages": 2, "restarts": 1, "resumes": 1}
    assert told["out_s"] == 39.0  # from 7 to 46, told by two workers
    assert (told["gaps"], told["longest_s"]) == (1, 34.0)


def test_the_chart_shows_the_gap_and_every_interruption(run: Path) -> None:
    figure = timeline(load(run))
    assert figure is not None
    spec = figure.spec()
    go.Figure(spec)  # raises on an unknown property
    traces: dict[str, Any] = {trace["name"]: trace for trace in spec["data"]}
    assert len(traces["steps"]["x"]) == 8
    assert traces["outages"]["x"] == pytest.approx(
        [7 / 60, 17 / 60, None, 9 / 60, 46 / 60, None], nan_ok=True
    )
    assert traces["restarts"]["x"] == [9 / 60] and traces["resumes"]["x"] == [0.5]
    shape = spec["layout"]["shapes"][0]
    assert (shape["x0"], shape["x1"]) == (6 / 60, 40 / 60)
    assert "<" not in json.dumps(spec)


def test_the_page_tells_of_them_and_of_the_audit(run: Path) -> None:
    text = html.unescape(write_report(run).read_text())
    assert "1 restart(s) of a process, 1 resume(s) of the run, 2 outage(s)" in text
    assert "1 gap(s) between steps, the longest 34.0" in text
    assert '<strong class="good">Sound.</strong>' in text
    change(run, "DELETE FROM rollouts WHERE lease = 2 AND sample = 1")
    text = html.unescape(write_report(run).read_text())
    assert "It does not hold together." in text
    assert "the ledger does not add up: 64 issued" in text


def test_a_run_without_interruptions_says_so(tmp_path: Path) -> None:
    run = write_sound_run(tmp_path / "run")
    assert timeline(load(run)) is None
    assert "Nothing was restarted, and nothing was out of reach." in write_report(run).read_text()


def test_events_that_make_no_sense_are_passed_over(run: Path) -> None:
    with (run / "events.jsonl").open("a") as file:
        for event in (
            {"time": "soon", "kind": "restart"}, {"kind": "outage"}, {"time": 1},
            {"time": START, "process": "w", "kind": "outage_over", "text": "what answers"},
            {"time": START, "process": "w", "kind": "outage", "text": "hm"},
        ):
            file.write(json.dumps(event) + "\n")
    assert len(interruptions(load(run))) == 4
