"""Generic detectors by the name used in `detectors.rollout`. A new one is a file and a line."""

from __future__ import annotations

from rltrain.detectors.judge_injection import JudgeInjection
from rltrain.detectors.refusal import Refusal
from rltrain.detectors.repetition import Repetition
from rltrain.protocols import Detector

DETECTORS: dict[str, Detector] = {
    "judge_injection": JudgeInjection(),
    "refusal": Refusal(),
    "repetition": Repetition(),
}
