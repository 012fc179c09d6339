"""Precision of both sides as one choice, and what happens when they drift apart all the same."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from rltrain.config.base import Section

ENGINE_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""The engine's type that computes what the learner's precision computes."""

METRIC = {"lag_0": "mismatch/mean_abs_logprob/lag_0"}
"""Thresholds whose metric has another name."""


class ScaleConfig(Section):
    """Dynamic loss scaling of fp16: half its scale on an overflow, twice after a quiet while."""

    init: PositiveFloat = 65536.0
    growth_interval: PositiveInt = 400
    """Updates in a row without overflow, after which the scale doubles."""
    backoff: float = Field(default=0.5, gt=0, lt=1)
    """Factor on the scale when a gradient overflowed; that update is skipped."""
    floor: PositiveFloat = 2.0**-14
    """Smallest scale. Below 1 on purpose: gradients on the residual stream may overflow fp16
    without any scaling. An overflow at the floor stops the run."""


class PrecisionConfig(Section):
    """What learner and engine compute in. The learner's parameters, gradients, their reduction and
    the optimizer are fp32 in every case: the parameters are the master weights."""

    compute: Literal["fp32", "bf16", "fp16"] = "fp32"
    """The learner's autocast and the engine's dtype."""
    head: Literal["compute", "fp32"] = "compute"
    """`fp32` multiplies the output head in fp32 on both sides, with the weights as the engine has
    them."""
    scale: ScaleConfig = ScaleConfig()
    allow_mismatch: bool = False
    """Go on although a layer is computed in another dtype by the engine than by the learner."""

    @property
    def engine_dtype(self) -> str:
        """vLLM's name of `compute`."""
        return ENGINE_DTYPES[self.compute]


class Thresholds(Section):
    """Limits on metrics `mismatch/…`; a metric is beyond one if its absolute value is, or if it is
    NaN. None sets no limit."""

    mean_abs_logprob: NonNegativeFloat | None = None
    """Nats per token, |learner - engine|; and its median, 99th percentile and maximum."""
    p50_abs_logprob: NonNegativeFloat | None = None
    p99_abs_logprob: NonNegativeFloat | None = None
    max_abs_logprob: NonNegativeFloat | None = None
    lag_0: NonNegativeFloat | None = None
    """`mean_abs_logprob` of tokens that were sampled from the very weights that score them."""
    first_token: NonNegativeFloat | None = None
    """`mean_abs_logprob` of the first token of each answer."""
    later_tokens: NonNegativeFloat | None = None
    k1: NonNegativeFloat | None = None
    k3: NonNegativeFloat | None = None
    """Estimates of KL(engine || learner), nats per token."""
    sequence_kl: NonNegativeFloat | None = None
    """The same per answer: the sum of its tokens' k1."""
    slope_per_1k: NonNegativeFloat | None = None
    """Nats by which log(learner / engine) of an answer grows with 1,000 tokens."""
    max_ratio: NonNegativeFloat | None = None
    """Largest learner / engine of one token, or its inverse."""
    chi2_token: NonNegativeFloat | None = None
    chi2_sequence: NonNegativeFloat | None = None

    def limits(self) -> dict[str, float]:
        """Metric by its full name -> limit, for those that have one."""
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return {METRIC.get(name, f"mismatch/{name}"): value for name, value in given.items()}


class MismatchConfig(Section):
    """The measured distance of engine and learner as a gate."""

    warn: Thresholds = Thresholds(k3=0.01)
    """Beyond it, an event is written, once."""
    correct: Thresholds = Thresholds()
    """Beyond it, `correction` is switched on for the rest of the run, unless it is on already."""
    stop: Thresholds = Thresholds(k3=1.0)
    """Beyond it, the run ends with a checkpoint and an error."""
    patience: PositiveInt = 3
    """Steps in a row beyond a threshold before it counts."""
    correction: str | tuple[str, ...] = "token_tis"
    """What `correct` switches on, in place of `algo.correction`: keys of
    `algo.corrections.CORRECTIONS`, with those of `algo.correction_args` that they know."""

    @property
    def corrections(self) -> tuple[str, ...]:
        return (self.correction,) if isinstance(self.correction, str) else self.correction
