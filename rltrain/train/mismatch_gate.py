"""The mismatch of engine and learner as a gate of the run: warn, correct, stop.

Corrections weigh or mask what an engine sampled from a somewhat different policy. They cannot make
up for one that computes another policy altogether: then a run ends, with a checkpoint, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rltrain.algo.corrections import WEIGHING, Correction, combined
from rltrain.algo.mismatch_gate import Thresholds
from rltrain.config.algo import AlgoConfig
from rltrain.config.precision import MismatchConfig
from rltrain.errors import MismatchError
from rltrain.types import StepStats


class Correctable(Protocol):
    """A learner as far as the gate is concerned."""

    def correct(self, correction: Correction) -> None: ...


class MismatchGate:
    """Implements `loop.Gate`."""

    def __init__(
        self,
        config: MismatchConfig,
        algo: AlgoConfig,
        learner: Correctable,
        tell: Callable[[str], None],
    ) -> None:
        """tell: given each event, as a sentence.

        Raises `UserError` for a correction or an argument that does not exist."""
        self.config = config
        self.learner = learner
        self.tell = tell
        self.thresholds = Thresholds(config)
        self.corrected = False
        self.correction = correction_of(config, algo)

    def __call__(self, step: int, stats: StepStats) -> MismatchError | None:
        """Judge a step by its metrics. Returns the error that the run must end with, or None."""
        stop = None
        for reached in self.thresholds.observe(stats.metrics):
            said = f"step {step}: {reached.sentence()}"
            if reached.level == "correct":
                self.tell(f"{said}; {self._correct()}")
            elif reached.level == "stop":
                self.thresholds.forget("stop")
                stop = MismatchError(
                    f"the engine computes another policy than the learner: {said}; `rltrain "
                    "mismatch` measures it, and resume=auto goes on from here with another limit"
                )
                self.tell(str(stop))
            else:
                self.tell(said)
        return stop

    def _correct(self) -> str:
        """Switch the correction on; returns what was done."""
        if self.correction is None:
            return "a correction is on already"
        self.learner.correct(self.correction)
        self.corrected = True
        return f"{' and '.join(self.config.corrections)} is on from the next step"

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"thresholds": self.thresholds.state_dict(), "corrected": self.corrected}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`, with the correction on if it was."""
        self.thresholds.load_state_dict(state["thresholds"])
        if state["corrected"]:
            self._correct()


def correction_of(config: MismatchConfig, algo: AlgoConfig) -> Correction | None:
    """What `correct` switches on, together with those of `algo.correction` that only decide;
    None if the run weighs by a ratio already.

    Raises `UserError` for a correction or an argument that does not exist."""
    on = [name for name in algo.corrections if name != "none"]
    new = [name for name in config.corrections if name not in on]
    made = combined([*[n for n in on if n not in WEIGHING], *new], {})
    if not new or (WEIGHING & set(on) and WEIGHING & set(new)):
        return None
    return combined([*on, *new], algo.correction_args) if algo.correction_args else made
