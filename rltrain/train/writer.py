"""Writes checkpoints behind the loop's back: one thread, one checkpoint at a time.

    save: snapshot -> thread: files, checksums, fsync, marker, rename, then the oldest goes

The loop pays for the snapshot alone, unless the disk is slower than the steps between two saves:
then a save waits for the one before.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rltrain.errors import RltrainError
from rltrain.train.checkpoint import (
    Renders,
    Snapshot,
    Trained,
    checkpoint_path,
    fsync,
    marked,
    retain,
    step_of,
    take,
)


class Checkpoints:
    """Owns a run's folder of checkpoints."""

    def __init__(
        self,
        folder: Path,
        learner: Trained,
        renderer: Renders,
        keep: int,
        books: Sequence[Path] = (),
    ) -> None:
        """keep: how many are kept, at least 1. books: files that a checkpoint counts on, made to
        survive a power cut before it does."""
        self.folder = folder
        self.keep = keep
        self._learner = learner
        self._renderer = renderer
        self._books = books
        self._thread: threading.Thread | None = None
        self._failed: tuple[int, Exception] | None = None

    def oldest(self) -> int:
        """The earliest step that the run may have to go on from: that of the oldest checkpoint, or
        0, where the run began, as long as fewer are on disk than are kept."""
        steps = [step_of(path) for path in marked(self.folder)]
        return steps[0] if len(steps) >= self.keep else 0

    def save(self, step: int, extra: Mapping[str, Any]) -> None:
        """Take the learner's state as it is now, and begin to write it. extra: plain JSON values.

        Raises `RltrainError` if the checkpoint before was not written."""
        self.close()
        taken = take(self._learner, self._renderer, step, extra)
        self._thread = threading.Thread(
            target=self._write, args=(taken,), name="checkpoint", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Wait for what is being written. Raises `RltrainError` if it was not."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failed, self._failed = self._failed, None
        if failed is not None:
            step, error = failed
            text = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RltrainError(
                f"the checkpoint of step {step} could not be written to {self.folder}: {text}; "
                "make room or give permission, then continue the run with resume=auto"
            ) from error

    def _write(self, taken: Snapshot) -> None:
        path = checkpoint_path(self.folder, taken.step)
        try:
            for book in self._books:
                if book.exists():
                    fsync(book)
            taken.write(path)
            retain(self.folder, self.keep)
        except Exception as error:  # raised where somebody listens: at the next save, or the end
            shutil.rmtree(path.with_name(f".{path.name}.tmp"), ignore_errors=True)
            self._failed = (taken.step, error)
