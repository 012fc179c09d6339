"""Generic detectors by the name used in `detectors.rollout`. A new one is a file and a line."""

from __future__ import annotations

from rltrain.detectors.format_gaming import FormatGaming
from rltrain.detectors.judge_attack import JudgeAttack
from rltrain.detectors.judge_injection import JudgeInjection
from rltrain.detectors.refusal import Refusal
from rltrain.detectors.repetition import Repetition
from rltrain.detectors.special_casing import SpecialCasing
from rltrain.detectors.tampering import Tampering
from rltrain.protocols import Detector

DETECTORS: dict[str, Detector] = {
    "format_gaming": FormatGaming(),
    "judge_attack": JudgeAttack(),
    "judge_injection": JudgeInjection(),
    "refusal": Refusal(),
    "repetition": Repetition(),
    "special_casing": SpecialCasing(),
    "test_tampering": Tampering(),
}
