"""What a person sees while a run is on, on a terminal and in a log file."""

from __future__ import annotations

import io
import threading
from pathlib import Path

from rich.console import Console

from rltrain.track import JsonlTracker, ProgressView, follow
from rltrain.track.console import clock

ROW = {
    "step": 10, "time": 1000.0, "reward/mean": 0.5, "truth/mean": 0.25, "valid/rate": 0.9,
    "flag/any": 0.031, "lag/mean": 0.5, "lag/max": 2, "tokens_per_s": 1234.4,
    "time/step_s": 2.0, "time/learn_s": 1.5, "time/wait_s": 0.4,
}


def plain(total: int = 100, every: int = 10) -> tuple[ProgressView, io.StringIO]:
    out = io.StringIO()
    return ProgressView(total, console=Console(file=out, width=60), every=every), out


def test_a_log_file_gets_one_whole_line_every_few_steps() -> None:
    view, out = plain()
    with view:
        for step in range(9, 21):
            view.update(ROW | {"step": step, "time": 1000.0 + 2 * step})
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(
        "step 20/100 · reward 0.500 · truth 0.250 · valid 90% · hacks 3.1% · lag 0.5/2 · "
        "tok/s 1,234 · learn/wait 75%/20%"
    )
    assert lines[1].endswith("ETA 2:40")  # 80 steps of 2 s


def test_an_alarm_is_printed_at_once_and_stays() -> None:
    view, out = plain()
    view.update(ROW | {"step": 11, "alarm/output_collapse": 0.4})
    view.update(ROW | {"step": 20})
    first, second = out.getvalue().splitlines()
    assert first.endswith("ALARM output_collapse at step 11")
    assert second.endswith("ALARM output_collapse at step 11")


def test_phases_before_training_are_shown_without_flooding_a_log() -> None:
    view, out = plain()
    for done in range(101):
        view.phase("building policy", done, 100, "[not markup]")
    first, last = out.getvalue().splitlines()
    assert first.startswith("building policy · 0 %")
    assert "100 %" in last
    assert last.endswith("[not markup]")


def test_a_row_with_nothing_in_it_is_shown_as_unknown_not_as_zero() -> None:
    view, out = plain(every=1)
    view.update({"step": 1})
    assert "reward - · truth - · valid -" in out.getvalue()
    assert "ETA" not in out.getvalue()


def test_a_terminal_shows_bars_numbers_and_the_alarm() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=110)
    with ProgressView(100, console=console) as view:
        view.phase("building policy", 43, 100)
        console.print(view._render())
        view.update(ROW | {"alarm/output_collapse": 1.0})
    text = out.getvalue()
    for word in ("building policy · 43 %", "step 10/100", "0.250", "1,234", "ALARM"):
        assert word in text


def test_follow_shows_every_row_up_to_the_end_of_the_run(tmp_path: Path) -> None:
    view, out = plain(every=1)
    ended = threading.Event()
    path = tmp_path / "metrics.jsonl"
    arguments = {"done": ended.is_set, "poll_s": 0.01}
    watcher = threading.Thread(target=follow, args=(path, view), kwargs=arguments)
    watcher.start()
    tracker = JsonlTracker(path)
    for step in (1, 2, 3):
        tracker.log(step, {"reward/mean": step / 10})
    ended.set()
    watcher.join(timeout=10)
    assert [line.split(" · ")[1] for line in out.getvalue().splitlines()] == [
        "reward 0.100", "reward 0.200", "reward 0.300",
    ]


def test_clocks_are_short() -> None:
    assert [clock(s) for s in (0, 42.4, 60, 185, 3723)] == [
        "0 s", "42 s", "1:00", "3:05", "1:02:03",
    ]
