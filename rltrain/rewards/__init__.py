"""What an answer earns: `Episode -> Judged -> Screened`.

`gates` walks the stages and stops at the first failure · `stages` is one gate with its check, its
deadline and its memory · `ladder` says what each outcome may pay · `bonus` orders the best answers
among themselves · `lint` and `probe` find what is wrong with a reward before a run · `savings`
counts what was never asked.

Checks: `schemas` (JSON Schema, pydantic) over `structured` (strict JSON) · `program` runs answers
in the sandbox · `trl` lets any TRL reward function be a gate · `reward_model` scores with a trained
model · `judge` is an LLM behind an OpenAI-compatible server, `calibration` measures how far it can
be trusted. The environment's own and the detectors come in from outside.
"""

from rltrain.rewards.calibration import agreement, calibrate
from rltrain.rewards.gates import GatedReward, reward_by_gate
from rltrain.rewards.judge import LLMJudge
from rltrain.rewards.judge_asker import JudgeStats
from rltrain.rewards.reward_model import RewardModelCheck
from rltrain.rewards.trl import TRLCheck
from rltrain.rewards.verdicts import NOT_APPLICABLE

__all__ = [
    "NOT_APPLICABLE", "GatedReward", "JudgeStats", "LLMJudge", "RewardModelCheck",
    "TRLCheck", "agreement", "calibrate", "reward_by_gate",
]  # fmt: skip
