"""What an answer earns: `Episode -> Judged -> Screened`.

`gates` walks the stages and stops at the first failure · `judge` is an LLM behind an
OpenAI-compatible server · `calibration` measures how far that judge can be trusted · `trl` lets any
TRL reward function be a gate · `reward_model` scores with a trained model. The detectors come in
from outside, as a function of a `Judged`.
"""

from rltrain.rewards.calibration import agreement, calibrate
from rltrain.rewards.gates import GatedReward, reward_by_gate
from rltrain.rewards.judge import JudgeStats, LLMJudge
from rltrain.rewards.reward_model import RewardModelCheck
from rltrain.rewards.trl import TRLCheck
from rltrain.rewards.verdicts import NOT_APPLICABLE

__all__ = [
    "NOT_APPLICABLE", "GatedReward", "JudgeStats", "LLMJudge", "RewardModelCheck",
    "TRLCheck", "agreement", "calibrate", "reward_by_gate",
]  # fmt: skip
