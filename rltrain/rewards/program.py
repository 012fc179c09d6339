"""The answer is a Python program: run it on the task's inputs and compare what it prints.

Expected outputs never enter the sandbox, so that a program cannot read them. A program that fails,
hangs or floods is the policy's doing and scores; a sandbox that cannot be had is a fault.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rltrain.config.sandbox import SandboxConfig
from rltrain.errors import UserError
from rltrain.rewards.structured import Malformed, body, reason
from rltrain.sandbox import run
from rltrain.types import Task, Verdict

TAGS = ("python", "py")


class ProgramCheck:
    """A `Check` whose score is the share of tests with the right output."""

    version = "1"

    def __init__(
        self, tests: str, *, sandbox: SandboxConfig, pass_at: float, extract: str = "text"
    ) -> None:
        """`tests`: key of the task's data with a list of {stdin, stdout}."""
        self._tests = tests
        self._sandbox = sandbox
        self._pass_at = pass_at
        self._extract = extract
        self._pool: ThreadPoolExecutor | None = None

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Run the program once per test.

        Raises `EnvironmentFault` if the sandbox fails, `UserError` if the task has no tests or a
        demanded wall cannot be had."""
        tests = self._of(task)
        try:
            source = body(answer, self._extract, TAGS)
        except Malformed as error:
            return self._verdict(0.0, reason("program", [error.finding]))
        # No more at a time than there are cores: a program that had to wait for its turn must not
        # run out of time for it.
        self._pool = self._pool or ThreadPoolExecutor(os.cpu_count() or 1, "rltrain-program")
        loop = asyncio.get_running_loop()
        said = await asyncio.gather(
            *(loop.run_in_executor(self._pool, self._one, source, str(t["stdin"])) for t in tests)
        )
        right = [
            output is not None and _same(output, str(test["stdout"]))
            for (output, _), test in zip(said, tests, strict=True)
        ]
        score = sum(right) / len(right)
        first = next((how for ok, (_, how) in zip(right, said, strict=True) if not ok), "")
        detail = f"; first: {first}" if first else ""
        return self._verdict(score, f"program: {sum(right)} of {len(right)} tests{detail}")

    def _one(self, source: str, stdin: str) -> tuple[str | None, str]:
        """What the program printed (None if it did not end well), and how it ended."""
        limits = self._sandbox
        outcome = run(
            source,
            time_s=limits.time_s,
            memory_mb=limits.memory_mb,
            files_mb=limits.files_mb,
            network=limits.network,
            stdin=stdin,
            require=limits.require,
        )
        if outcome.reason != "exited":
            return None, outcome.reason
        if outcome.exit:
            return None, f"exit {outcome.exit}"
        return outcome.stdout, "wrong output"

    def _of(self, task: Task) -> Sequence[Mapping[str, Any]]:
        tests = task.data.get(self._tests)
        if not tests or not all({"stdin", "stdout"} <= set(test) for test in tests):
            raise UserError(
                f"rewards.stages: task {task.id} has no list of {{stdin, stdout}} in its data "
                f"under {self._tests!r}; set `tests` to the right key"
            )
        found: Sequence[Mapping[str, Any]] = tests
        return found

    def _verdict(self, score: float, why: str) -> Verdict:
        return Verdict(
            gate="program",
            passed=score >= self._pass_at,
            score=score,
            reason=why,
            version=self.version,
        )


def _same(got: str, wanted: str) -> bool:
    """Equal but for space at the ends of lines and of the text."""
    return [line.rstrip() for line in got.rstrip().splitlines()] == [
        line.rstrip() for line in wanted.rstrip().splitlines()
    ]
