"""What an answer earns: gates in order, the judge, and what each detector's finding does."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from rltrain.config.base import Section

Action = Literal["keep", "zero", "drop"]


class StageConfig(Section):
    """One gate. Later gates are evaluated only if this one passes."""

    check: str
    """A check of the environment by name, or `screen` (detectors), `judge` or `reward_model`."""
    on_fail: float = Field(default=0.0, ge=0, le=1)
    """Reward when this is the gate that fails. Any floor is itself a target for gaming."""


class TinyJudgeConfig(Section):
    """The embedded judge: a small language model trained on pairs labelled by execution."""

    steps: PositiveInt = 700
    examples: PositiveInt = 40_000
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 2e-3
    seed: int = 0
    threads: PositiveInt = 1
    hidden_size: PositiveInt = 192
    layers: PositiveInt = 4


class JudgeConfig(Section):
    """An LLM judge behind the OpenAI-compatible protocol."""

    endpoint: str | None = None
    """Base URL ending in /v1. None starts our own server with the embedded judge."""
    model: str = "judge"
    """Name sent in the request."""
    api_key_env: str = "RLTRAIN_JUDGE_API_KEY"
    """Environment variable with the key; the key itself never enters a config or a log."""
    verdicts: dict[str, float] = {"yes": 1.0, "no": 0.0}
    """The only answers that count, with their scores. Anything else is a system fault, never 0."""
    pass_at: float = Field(default=0.5, ge=0, le=1)
    concurrency: PositiveInt = 64
    timeout_s: PositiveFloat = 30.0
    retries: NonNegativeInt = 3
    backoff_s: NonNegativeFloat = 0.25
    cache_size: NonNegativeInt = 100_000
    """Verdicts remembered by (rubric, request, canonical answer)."""
    version: str = "1"
    """Recorded with every verdict; change it when the rubric or the model changes."""
    tiny: TinyJudgeConfig = TinyJudgeConfig()
    witness: bool = False
    """Measure the judge against executed truth even where no stage rewards by it."""
    calibrate: PositiveInt = 600
    """Labelled held-out pairs on which agreement with executed truth is measured."""


class RewardModelConfig(Section):
    """A trained reward model (`algo=reward_model`) as a gate."""

    folder: str | None = None
    """Where it was exported to: `runs/NAME/model`. Needed if `reward_model` is a stage."""
    pass_at: float = Field(default=0.0, ge=0, le=1)
    """Least score that passes; at 0 every answer passes and its score is what it earns."""


class RewardsConfig(Section):
    """Ordered gates; the last gate's score is the reward when all pass."""

    stages: tuple[StageConfig, ...] = Field(min_length=1)
    judge: JudgeConfig = JudgeConfig()
    reward_model: RewardModelConfig = RewardModelConfig()


class DetectorConfig(Section):
    """What a finding of one detector does to the rollout."""

    action: Action = "zero"


class DetectorsConfig(Section):
    """Detectors per rollout (by name) and alarms over the whole run."""

    rollout: dict[str, DetectorConfig] = {}
    alarms: tuple[str, ...] = ("output_collapse", "reward_truth_divergence", "length_exploitation")
    """Alarms over the whole run that are on."""
    collapse_share: float = Field(default=0.2, gt=0, le=1)
    """Share of different tasks that get one and the same answer from which on it is a collapse."""
    divergence_window: PositiveInt = 20
    """Steps over which reward and truth are compared."""
