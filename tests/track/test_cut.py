"""What a run that goes on from a step takes back of the steps after it."""

from __future__ import annotations

from pathlib import Path

from rltrain.track import JsonlTracker, cut_after, read_metrics, rollouts_path, write_rollouts
from rltrain.track.jsonl import Tail


def logged(run: Path, *steps: int) -> Path:
    tracker = JsonlTracker(run / "metrics.jsonl")
    for step in steps:
        tracker.log(step, {"a": step / 2})
        write_rollouts(rollouts_path(run, step), [], step=step, version=step - 1)
    tracker.close()
    return run / "metrics.jsonl"


def test_later_rows_and_rollouts_go_and_earlier_ones_stay_as_they_were(tmp_path: Path) -> None:
    path = logged(tmp_path, 1, 2, 3, 4, 5)
    before = path.read_text().splitlines()
    with path.open("a") as file:
        file.write('{"step": 6, "a"')
    (tmp_path / "rollouts" / ".step-00006.parquet.1-ab.tmp").write_bytes(b"half")
    assert cut_after(tmp_path, 3) == 2
    assert path.read_text().splitlines() == before[:3]
    names = sorted(p.name for p in (tmp_path / "rollouts").iterdir())
    assert names == [f"step-{step:05d}.parquet" for step in (1, 2, 3)]
    logged(tmp_path, 4)
    assert [row["step"] for row in read_metrics(path).rows] == [1, 2, 3, 4]


def test_of_a_step_that_was_logged_twice_the_later_row_stays(tmp_path: Path) -> None:
    path = logged(tmp_path, 1, 2)
    JsonlTracker(path).log(2, {"a": 7.0})
    assert cut_after(tmp_path, 2) == 0
    found = read_metrics(path)
    assert ([row["a"] for row in found.rows], found.superseded) == ([0.5, 7.0], 0)


def test_nothing_to_cut_touches_nothing(tmp_path: Path) -> None:
    assert cut_after(tmp_path, 0) == 0
    assert list(tmp_path.iterdir()) == []
    path = logged(tmp_path, 1, 2)
    inode = path.stat().st_ino
    assert cut_after(tmp_path, 2) == 0 and path.stat().st_ino == inode


def test_back_at_the_beginning_nothing_is_left(tmp_path: Path) -> None:
    path = logged(tmp_path, 1, 2)
    assert cut_after(tmp_path, 0) == 2
    assert path.read_text() == "" and not list((tmp_path / "rollouts").iterdir())


def test_somebody_who_follows_sees_the_steps_that_are_done_again(tmp_path: Path) -> None:
    path = logged(tmp_path, 1, 2, 3)
    tail = Tail(path)
    assert [row["step"] for row in tail.poll()] == [1, 2, 3]
    cut_after(tmp_path, 1)
    logged(tmp_path, 2)
    assert [row["step"] for row in tail.poll()] == [1, 2]
    logged(tmp_path, 3)
    assert [row["step"] for row in tail.poll()] == [3]
