"""One gate, ready to be asked: its check, what the check sees, its deadline and its memory.

    StageConfig -> Stage;   (task, raw answer, canonical answer) -> Verdict, or a system fault
"""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rltrain.config.rewards import KEYS, StageConfig
from rltrain.errors import EnvironmentFault, JudgeFault, RltrainError, SystemFault, UserError
from rltrain.protocols import Check, Environment
from rltrain.rewards.memory import VerdictMemory
from rltrain.rewards.program import ProgramCheck
from rltrain.rewards.schemas import JsonSchemaCheck, PydanticCheck
from rltrain.rewards.trl import TRLCheck
from rltrain.rewards.verdicts import UNPARSED, raised
from rltrain.types import Task, Verdict

SCREEN = "screen"
JUDGE = "judge"
JUDGE_PAIRWISE = "judge_pairwise"
JUDGES = frozenset({JUDGE, JUDGE_PAIRWISE})
REWARD_MODEL = "reward_model"
MODELS = JUDGES | {REWARD_MODEL}
"""Checks that score by a model; they see canonical answers only."""


def _json_schema(stage: StageConfig) -> Check:
    assert stage.schema_ is not None, "validated with the config"
    return JsonSchemaCheck(stage.schema_, stage.extract)


def _pydantic(stage: StageConfig) -> Check:
    assert stage.model is not None, "validated with the config"
    return PydanticCheck(stage.model, stage.extract)


def _function(stage: StageConfig) -> Check:
    assert stage.function is not None, "validated with the config"
    return TRLCheck.load(
        stage.function,
        stage.args,
        low=stage.range[0],
        high=stage.range[1],
        pass_at=stage.pass_at,
        conversational=stage.conversational,
        # Only another thread can be given up on while it computes.
        threaded=stage.timeout_s is not None,
    )


def _program(stage: StageConfig) -> Check:
    return ProgramCheck(
        stage.tests, sandbox=stage.sandbox, pass_at=stage.pass_at, extract=stage.extract
    )


OWN_CHECKS: Mapping[str, Callable[[StageConfig], Check]] = {
    "json_schema": _json_schema,
    "pydantic": _pydantic,
    "function": _function,
    "program": _program,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A gate of a run."""

    config: StageConfig
    check: Check | None
    """None for `screen`, which is no check of an answer."""
    memory: VerdictMemory | None

    @property
    def canonical(self) -> bool:
        """Whether the check sees the canonical answer and never what the policy wrote."""
        return self.config.check in MODELS or self.config.sees == "canonical"

    async def ask(self, task: Task, raw: str, canonical: str | None) -> Verdict:
        """What the check says.

        An answer without canonical form fails a check that sees canonical answers, unasked. Raises
        `SystemFault` if the check broke or gave no answer in time, and `UserError` as it is."""
        assert self.check is not None, "the screen is not asked"
        seen = canonical if self.canonical else raw
        version = self.config.validator_version
        if seen is None:
            reason = f"{UNPARSED}: the answer has no canonical form to show the check"
            verdict = Verdict(
                gate=self.config.gate,
                passed=False,
                score=0.0,
                reason=reason,
                version=self.check.version,
            )
        elif self.memory is None:
            verdict = await self._answer(task, seen)
        else:
            verdict = await self.memory.get((task.id, seen), lambda: self._answer(task, seen))
        return verdict if version is None else replace(verdict, version=version)

    async def _answer(self, task: Task, seen: str) -> Verdict:
        assert self.check is not None
        limit_s, started = self.config.timeout_s, time.perf_counter()
        deadline = asyncio.timeout(limit_s)
        try:
            async with deadline:
                verdict = await self.check(task, seen)
        except RltrainError:
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                raise self._late() from None
            broken = f"Check {self.config.gate!r} is broken: it {raised(error)}"
            raise EnvironmentFault(broken) from error
        # A check that never gave way was not interrupted; it is late all the same.
        if limit_s is not None and time.perf_counter() - started > limit_s:
            raise self._late()
        return verdict

    def _late(self) -> SystemFault:
        kind = JudgeFault if self.config.check in MODELS else EnvironmentFault
        return kind(
            f"Check {self.config.gate!r} gave no answer within its timeout_s of "
            f"{self.config.timeout_s:g} s."
        )


def resolve(
    configs: Sequence[StageConfig], environment: Environment, models: Mapping[str, Check | None]
) -> tuple[Stage, ...]:
    """Every stage with its check. `models`: what is there beside the environment's checks; None
    under a name of it means "not configured".

    Raises `UserError` for an unknown, repeated or unavailable stage, naming what exists.
    """
    checks = dict(environment.checks())
    reserved = sorted(KEYS.keys() & checks.keys())
    if reserved:
        raise UserError(
            f"Environment {environment.name!r} brings a check named {reserved[0]!r}, which is the "
            "name of a built-in stage; rename it."
        )
    _validate(configs, environment.name, [*checks, SCREEN, *models, *OWN_CHECKS], models)
    stages = []
    for config in configs:
        check: Check | None
        if config.check in OWN_CHECKS:
            check = OWN_CHECKS[config.check](config)
        else:
            check = None if config.check == SCREEN else {**checks, **models}[config.check]
        memory = VerdictMemory() if config.cache else None
        stages.append(Stage(config=config, check=check, memory=memory))
    return tuple(stages)


def _validate(
    configs: Sequence[StageConfig],
    environment: str,
    known: Sequence[str],
    models: Mapping[str, Check | None],
) -> None:
    if not configs:
        raise UserError("rewards.stages is empty; name at least one check.")
    for name, available in models.items():
        if available is None and any(config.check == name for config in configs):
            raise UserError(f"rewards.stages names {name!r}, but no {name} was configured.")
    if {config.check for config in configs} == {SCREEN}:
        raise UserError("rewards.stages has only 'screen', which gives no score; add a check.")
    gates = [config.gate for config in configs]
    for position, config in enumerate(configs):
        if config.check not in known:
            raise UserError(_unknown(config.check, environment, known))
        if config.gate in gates[:position]:
            more = "; give one a `name`" if config.check in OWN_CHECKS else "; each gate runs once"
            raise UserError(f"rewards.stages names {config.gate!r} twice{more}.")
        if config.name and config.name in (SCREEN, *MODELS):
            raise UserError(f"rewards.stages: {config.name!r} is a built-in gate; rename yours.")


def _unknown(name: str, environment: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"rewards.stages: environment {environment!r} has no check {name!r}.{hint} "
        f"There are: {', '.join(known)}."
    )
