"""An LLM judge over the OpenAI-compatible protocol, whose every answer is a verdict or a fault.

    (task, canonical) -> prompt -> `judge_asker` -> reply -> its form -> Verdict, or JudgeFault

The judge reads a prompt over the *canonical* answer, the environment's or a rubric's: what the
policy wrote never reaches it, so there is nothing to inject into. A judge that is down, slow, or
answers in any form but the one asked for raises `JudgeFault`; the sibling is dropped and counted,
never scored 0. Before that, a judge that is out of reach is waited for up to `patience_s`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rltrain.config.judge import JudgeConfig
from rltrain.outage import Report, unreported
from rltrain.rewards.judge_asker import Asker, JudgeStats
from rltrain.rewards.judge_forms import Form, Words
from rltrain.rewards.judge_store import JudgeStore
from rltrain.rewards.rubric import Rubric, RubricForm, prompt_of
from rltrain.types import Message, Task, Verdict

Prompt = Callable[[Task, str], Sequence[Message]]


class Judge(Protocol):
    """A check that asks a model, or several. Use one instance in one event loop."""

    version: str

    async def __call__(self, task: Task, answer: str) -> Verdict: ...

    async def preflight(self) -> None: ...

    async def aclose(self) -> None: ...

    def metrics(self) -> dict[str, float]: ...


class LLMJudge:
    """A `Check` over canonical answers. Use one instance inside one event loop; `aclose()` it."""

    def __init__(
        self,
        config: JudgeConfig,
        prompt: Prompt,
        *,
        endpoint: str | None = None,
        guided: bool = False,
        report: Report = unreported,
        store: JudgeStore | None = None,
    ) -> None:
        """
        Args:
            config: the judge's section of the config. With `rubric`, that file's prompt and form.
            prompt: `environment.judge_prompt`.
            endpoint: base URL ending in /v1; needed if the config names none (own server).
            guided: ask the server to decode a verdict and nothing else (vLLM's
                `structured_outputs`). The answer is validated here in either case.
            report: told when the judge has been out of reach for a second, and when it is back.
            store: what judges answered in other runs; closed by whoever opened it.

        Raises `UserError` for a missing or malformed endpoint, a rubric that cannot be read, or
        impossible verdicts.
        """
        self.version = config.version
        self.prompt = prompt
        self.form: Form
        if config.rubric is None:
            self.form = Words(config.verdicts)
        else:
            rubric = Rubric.load(config.rubric)
            self.version = f"{config.version}/{rubric.mark}"
            self.prompt = prompt_of(rubric, config.max_chars)
            self.form = RubricForm(rubric, config.response_format)
        self.asker = Asker(
            config, endpoint=endpoint, guided=guided, report=report, store=store
        )
        self._config = config

    @property
    def stats(self) -> JudgeStats:
        return self.asker.stats

    def __repr__(self) -> str:
        return f"LLMJudge(endpoint={self.asker.client.shown!r}, model={self._config.model!r})"

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Judge a canonical answer.

        Raises `JudgeFault` if no usable verdict came within retries and patience, `UserError` if
        the server refuses us (401, 403, 404).
        """
        assert answer is not None, "the judge must not be asked about an answer that does not parse"
        started = time.perf_counter()
        reading, cached = await self.asker.ask(self.prompt(task, answer), self.form, self.version)
        return Verdict(
            gate="judge",
            passed=reading.score >= self._config.pass_at,
            score=reading.score,
            reason=reading.said,
            wall_s=time.perf_counter() - started,
            version=self.version,
            cached=cached,
        )

    async def preflight(self) -> None:
        """Send one test request. Raises `UserError` that says what to do if it is not answered."""
        await self.asker.preflight(self.form)

    async def aclose(self) -> None:
        """Abandon what is in flight and close the connections."""
        await self.asker.aclose()

    def metrics(self) -> dict[str, float]:
        """`Asker.metrics`."""
        return self.asker.metrics()
