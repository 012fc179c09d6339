"""LLM judges: who is asked, by which rubric, how several are combined, and what asking costs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from rltrain.config.base import Section
from rltrain.config.judge_require import JudgeRequire

Rule = Literal["majority", "mean", "min", "unanimous"]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TinyJudgeConfig(Section):
    """The embedded judge: a small language model trained on pairs labelled by execution."""

    steps: PositiveInt = 1_300
    examples: PositiveInt = 40_000
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 3e-3
    """Of embedding and norms; the matrices have one of their own (docs/benchmarks)."""
    seed: int = 0
    threads: PositiveInt = 1
    hidden_size: PositiveInt = 128
    layers: PositiveInt = 4


class PriceConfig(Section):
    """What a million tokens cost, in a currency of your choosing."""

    input: Price
    output: Price


class MemberConfig(Section):
    """One judge of an ensemble. What is left out is taken from `rewards.judge`."""

    endpoint: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    rubric: str | None = None
    verdicts: dict[str, float] | None = None
    pass_at: float | None = Field(default=None, ge=0, le=1)
    version: str | None = None
    price: PriceConfig | None = None
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Of its vote (`majority`) or of its score (`mean`)."""

    def said(self) -> dict[str, Any]:
        """The keys of a judge that this member sets itself."""
        names = set(type(self).model_fields) - {"weight"}
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class PairwiseConfig(Section):
    """`judge_pairwise`: two answers to one request are compared, in both orders."""

    reference: str | None = None
    """Key of the task's data with the answer to compare with; None compares siblings."""
    instructions: str = "Which of the two answers does what the request asks for?"
    opponents: PositiveInt = 4
    """Of each answer among its siblings."""


class JudgeConfig(Section):
    """An LLM judge behind the OpenAI-compatible protocol. See docs/judges.md."""

    endpoint: str | None = None
    """Base URL ending in /v1. None starts our own server with the embedded judge."""
    model: str = "judge"
    """Name sent in the request."""
    api_key_env: str = "RLTRAIN_JUDGE_API_KEY"
    """Environment variable with the key; the key itself never enters a config or a log."""
    rubric: str | None = None
    """File with criteria; None takes the environment's prompt and `verdicts`."""
    verdicts: dict[str, float] = {"yes": 1.0, "no": 0.0}
    """The only answers that count, with their scores. Anything else is a system fault, never 0."""
    pass_at: float = Field(default=0.5, ge=0, le=1)
    response_format: Literal["vllm", "json_schema", "json_object", "none"] = "json_schema"
    """How an endpoint is told the form of a rubric's verdict. `vllm`, as our own server is: it
    decodes single words by their form as well. The reply is validated here in any case."""
    max_chars: PositiveInt = 20_000
    """Of a request or an answer in a rubric's prompt; the judge is told what was cut off."""
    ensemble: tuple[MemberConfig, ...] = ()
    """Several judges, each asked about every answer; empty for one judge."""
    rule: Rule = "majority"
    """How their verdicts become one."""
    quorum: PositiveInt | None = None
    """Members that must answer; None is all of them. Others may fault and are left out."""
    pairwise: PairwiseConfig = PairwiseConfig()
    concurrency: PositiveInt = 64
    timeout_s: PositiveFloat = 30.0
    retries: NonNegativeInt = 3
    backoff_s: NonNegativeFloat = 0.25
    patience_s: NonNegativeFloat = 120.0
    """How long a question waits for a judge that is out of reach, before its sibling is lost to the
    system. Tries that fail meanwhile do not count."""
    cache_size: NonNegativeInt = 100_000
    """Verdicts remembered by (rubric, request, canonical answer)."""
    cache_file: str | None = None
    """SQLite file that remembers them from run to run, for a configured endpoint."""
    price: PriceConfig | None = None
    """Makes `judge/cost` a metric."""
    version: str = "1"
    """Recorded with every verdict; change it when the rubric or the model changes."""
    tiny: TinyJudgeConfig = TinyJudgeConfig()
    witness: bool = False
    """Measure the judge against executed truth even where no stage rewards by it."""
    calibrate: PositiveInt = 600
    """Labelled held-out pairs on which agreement with executed truth is measured."""
    require: JudgeRequire = JudgeRequire()
    """What a calibration of this judge must have shown before it may reward."""

    @model_validator(mode="after")
    def _parts_fit(self) -> JudgeConfig:
        endpoints = [self.endpoint, *(member.endpoint for member in self.ensemble)]
        if self.cache_file and not any(endpoints):
            raise ValueError(
                "cache_file needs an endpoint: the embedded judge is built anew when its "
                "environment changes, and a file would remember the old one's verdicts"
            )
        if self.quorum is not None and self.quorum > max(1, len(self.ensemble)):
            raise ValueError(
                f"quorum is {self.quorum}, but there are {len(self.ensemble)} members of ensemble"
            )
        return self

    @model_validator(mode="after")
    def _token_stays_here(self) -> JudgeConfig:
        """The token of our own server travels in the variable that its judge names."""
        members = self.members()
        own = {member.api_key_env for member in members if member.endpoint is None}
        if own & {member.api_key_env for member in members if member.endpoint}:
            raise ValueError(
                "ensemble mixes our own server with an endpoint under one api_key_env, which would "
                "send the server's token out; give the endpoint's member an api_key_env of its own"
            )
        if own - {self.api_key_env}:
            raise ValueError(
                "a member of ensemble without endpoint is our own server; leave out its api_key_env"
            )
        return self

    @property
    def own_server(self) -> bool:
        """Whether a judge of ours has to be served."""
        return any(member.endpoint is None for member in self.members())

    @property
    def guided(self) -> bool:
        """Whether the server knows vLLM's `structured_outputs`."""
        return self.endpoint is None or self.response_format == "vllm"

    def members(self) -> tuple[JudgeConfig, ...]:
        """Each member of the ensemble as a judge of its own; the judge itself if there is none."""
        alone = {"ensemble": (), "quorum": None}
        if not self.ensemble:
            return (self,)
        return tuple(self.model_copy(update=alone | part.said()) for part in self.ensemble)

    def passing_scores(self) -> tuple[float, float] | None:
        """Least and greatest score with which an answer can pass; None if none can.

        A rubric's are known by its file alone: from `pass_at` on, since its best is always 1."""
        if self.ensemble:
            return (1.0, 1.0) if self.rule in ("majority", "unanimous") else (self.pass_at, 1.0)
        if self.rubric:
            return self.pass_at, 1.0
        good = [score for score in self.verdicts.values() if score >= self.pass_at]
        return (min(good), max(good)) if good else None

    def never_fails(self) -> bool:
        """Whether the settings let every answer pass."""
        if self.ensemble and self.rule in ("majority", "unanimous"):
            return all(member.never_fails() for member in self.members())
        if self.ensemble or self.rubric:
            return self.pass_at <= 0
        return min(self.verdicts.values(), default=0.0) >= self.pass_at
