"""Reward hacking, seen: `Judged -> Flags` for one rollout, `Groups -> Alarms` for a run.

`screen` runs the named detectors over every rollout · one pure file per generic detector, listed in
`catalogue.DETECTORS`; environments bring their own · `run_level`, `change_point`, `usage` and
`dominance` are pure tests over many rollouts · `monitor` feeds them step by step.
"""

from rltrain.detectors.catalogue import DETECTORS
from rltrain.detectors.change_point import change_point
from rltrain.detectors.dominance import component_dominance, floor_dominance
from rltrain.detectors.monitor import RunMonitor
from rltrain.detectors.run_level import (
    Alarm,
    length_exploitation,
    output_collapse,
    reward_truth_divergence,
)
from rltrain.detectors.screen import Screen, build_screen, resolve_detectors
from rltrain.detectors.usage import catch_all_use

__all__ = [
    "DETECTORS", "Alarm", "RunMonitor", "Screen", "build_screen", "catch_all_use", "change_point",
    "component_dominance", "floor_dominance", "length_exploitation", "output_collapse",
    "resolve_detectors", "reward_truth_divergence",
]  # fmt: skip
