"""The stream of tasks by position: a lease's number is how far into the stream its task stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rltrain.errors import UserError
from rltrain.types import Task


class TaskStream:
    """Takes tasks off a stream in order, once it stands where a run goes on."""

    def __init__(self, tasks: Iterator[Task], start: int, wanted: Mapping[int, str]) -> None:
        """Go past the first `start` tasks; keep those at the positions in `wanted`, whose ids must
        be the given ones.

        Raises `UserError` if the stream is not the one that the run began with."""
        self._tasks = tasks
        self._position = 0
        self.kept: dict[int, Task] = {}
        while self._position < start:
            position, task = self._position, self.next()
            if position in wanted:
                if task.id != wanted[position]:
                    raise UserError(
                        f"the environment's task {position} is {task.id!r} now and was "
                        f"{wanted[position]!r} when the run began; continue with the environment, "
                        "its arguments and the seed that the run began with"
                    )
                self.kept[position] = task

    def next(self) -> Task:
        """The task at the next position. Raises `UserError` if the stream has ended."""
        task = next(self._tasks, None)
        if task is None:
            raise UserError(
                f"the environment's train split ended after {self._position} tasks; it must be "
                "endless (repeat its tasks)"
            )
        self._position += 1
        return task
