"""The whole config of a run: one tree, validated once at the edge."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from rltrain.config.algo import AlgoConfig, EvalConfig, TrackConfig, TrainConfig
from rltrain.config.base import Section
from rltrain.config.model import ModelConfig
from rltrain.config.precision import MismatchConfig, PrecisionConfig
from rltrain.config.rewards import DetectorsConfig, RewardsConfig
from rltrain.config.rollout import EngineConfig, EnvironmentConfig, RolloutConfig, SyncConfig
from rltrain.config.supervise import SuperviseConfig


class RunConfig(Section):
    """Everything that decides a run. `config.yaml` in the run directory is this, resolved."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run and of its folder."""
    runs_dir: str = "runs"
    cache_dir: str = ".cache/rltrain"
    """Where built models are kept, by content hash."""
    seed: int = 0
    max_steps: PositiveInt
    overwrite: bool = False
    """Replace a run of the same name instead of refusing."""
    resume: Literal["auto"] | None = None
    """`auto` continues the run of this name if there is one, and starts it if not."""
    model: ModelConfig
    environment: EnvironmentConfig
    rollout: RolloutConfig = RolloutConfig()
    engine: EngineConfig = EngineConfig()
    sync: SyncConfig = SyncConfig()
    rewards: RewardsConfig
    detectors: DetectorsConfig = DetectorsConfig()
    algo: AlgoConfig = AlgoConfig()
    train: TrainConfig = TrainConfig()
    precision: PrecisionConfig = PrecisionConfig()
    mismatch: MismatchConfig = MismatchConfig()
    eval: EvalConfig = EvalConfig()
    track: TrackConfig = TrackConfig()
    supervise: SuperviseConfig = SuperviseConfig()

    @property
    def uses_judge(self) -> bool:
        """Whether a stage rewards by the judge; offline methods sample nothing to be rewarded."""
        judged = any(s.check in ("judge", "judge_pairwise") for s in self.rewards.stages)
        return judged and not self.algo.offline

    @property
    def measures_judge(self) -> bool:
        """Whether the judge is calibrated against executed truth before training."""
        return self.uses_judge or (self.rewards.judge.witness and not self.algo.offline)

    @model_validator(mode="after")
    def _policy_is_trained(self) -> RunConfig:
        critic = self.algo.critic
        if critic is not None and critic.warmup_steps >= self.max_steps:
            raise ValueError(
                f"algo.critic.warmup_steps ({critic.warmup_steps}) must be smaller than max_steps "
                f"({self.max_steps}), or the policy is never trained"
            )
        return self

    @model_validator(mode="after")
    def _sides_agree(self) -> RunConfig:
        asked, learner = self.engine.dtype, self.precision.engine_dtype
        if asked not in ("auto", learner) and not self.precision.allow_mismatch:
            raise ValueError(
                f"engine.dtype={asked} has the engine compute every layer in {asked} and the "
                f"learner in {learner} (precision.compute={self.precision.compute}); leave it at "
                "auto, or give precision.allow_mismatch=true"
            )
        return self

    @model_validator(mode="after")
    def _lengths_fit(self) -> RunConfig:
        if self.rollout.max_new_tokens >= self.model.max_length:
            raise ValueError(
                f"rollout.max_new_tokens ({self.rollout.max_new_tokens}) must be smaller than "
                f"model.max_length ({self.model.max_length}), which also holds the prompt"
            )
        return self
