"""Checkpoints written behind the loop's back, on a real disk that may refuse."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rltrain.errors import RltrainError
from rltrain.train.checkpoint import latest_checkpoint, verify_checkpoint
from rltrain.train.learner import PolicyLearner
from rltrain.train.restore import restore
from rltrain.train.writer import Checkpoints
from tests.train.test_restore import RENDERER, plain, same_weights, steps


def writer_of(folder: Path, learner: PolicyLearner, keep: int = 2) -> Checkpoints:
    return Checkpoints(folder, learner, RENDERER, keep)


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file can grow beyond `limit` bytes: writing fails in the middle, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_training_goes_on_while_each_step_is_written_as_it_was(tmp_path: Path) -> None:
    learner = plain()
    writer = writer_of(tmp_path, learner, keep=3)
    seen = {}
    for step in (1, 2, 3, 4):
        steps(learner, step, step)
        seen[step] = {k: v.clone() for k, v in learner.model.state_dict().items()}
        writer.save(step, {})
    writer.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00002", "step-00003", "step-00004"]
    for step in (2, 3, 4):
        again = plain()
        restore(tmp_path / f"step-{step:05d}", again)
        assert all(torch.equal(v, seen[step][k]) for k, v in again.model.state_dict().items())


def test_the_beginning_counts_as_kept_until_there_are_enough(tmp_path: Path) -> None:
    writer = writer_of(tmp_path, plain())
    for step, oldest in ((3, 0), (6, 3), (9, 6)):
        writer.save(step, {})
        writer.close()
        assert writer.oldest() == oldest


def test_a_step_that_is_done_again_replaces_its_checkpoint(tmp_path: Path) -> None:
    learner = plain()
    writer = writer_of(tmp_path, learner)
    writer.save(1, {})
    steps(learner, 1, 1)
    writer.save(1, {})
    writer.close()
    again = plain()
    restore(tmp_path / "step-00001", again)
    assert same_weights(again.model, learner.model)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00001"]


def test_a_full_disk_is_said_at_the_next_save_and_leaves_the_last_checkpoint(
    tmp_path: Path,
) -> None:
    writer = writer_of(tmp_path, plain())
    writer.save(1, {})
    writer.close()
    with small_files(4096):
        writer.save(2, {})
        with pytest.raises(RltrainError) as raised:
            writer.save(3, {})
    text = str(raised.value)
    assert text.startswith("the checkpoint of step 2 could not be written") and "\n" not in text
    assert "resume=auto" in text
    assert [p.name for p in tmp_path.iterdir()] == ["step-00001"]
    writer.save(3, {})
    writer.close()
    latest = latest_checkpoint(tmp_path)
    assert latest is not None and verify_checkpoint(latest) == 3


def test_a_folder_that_cannot_be_written_is_said_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    writer = writer_of(tmp_path / "checkpoints", plain())
    writer.save(1, {})
    with pytest.raises(RltrainError, match=r"could not be written to .*checkpoints: "):
        writer.close()
    writer.close()  # said once


def test_the_books_are_flushed_only_if_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    books = (tmp_path / "metrics.jsonl", tmp_path / "ledger.sqlite-wal")
    writer = Checkpoints(tmp_path / "c", plain(), SimpleNamespace(**vars(RENDERER)), 1, books)
    writer.save(1, {})
    writer.close()
    assert writer.oldest() == 1
