"""The detectors of a run over one rollout: `Judged -> Flags`.

Every detector looks at every rollout, and what its finding does (`keep`, `zero`, `drop`) is the
config's decision, not the detector's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from rltrain.config.rewards import DetectorsConfig
from rltrain.detectors.catalogue import DETECTORS
from rltrain.errors import EnvironmentFault, RltrainError, UserError
from rltrain.protocols import Detector, Environment
from rltrain.types import Flag, Judged

EVIDENCE_CHARS = 400
"""Evidence is for a person to read; the whole answer is on disk anyway."""


class Screen:
    """Runs named detectors over a judged episode."""

    def __init__(self, detectors: Mapping[str, Detector], actions: Mapping[str, str]) -> None:
        """
        Args:
            detectors: by name, in the order in which their flags are listed.
            actions: `keep`, `zero` or `drop` for each of these names.

        Raises `UserError` if the two do not name the same detectors or an action is unknown.
        """
        if detectors.keys() != actions.keys():
            odd = sorted(detectors.keys() ^ actions.keys())
            raise UserError(f"Every detector needs one action; unmatched: {', '.join(odd)}.")
        wrong = [name for name, action in actions.items() if action not in ("keep", "zero", "drop")]
        if wrong:
            raise UserError(f"detectors.rollout.{wrong[0]}.action must be keep, zero or drop.")
        self.detectors = dict(detectors)
        self.actions = dict(actions)

    def __call__(self, judged: Judged) -> tuple[Flag, ...]:
        """Findings in the order of the detectors.

        Raises `EnvironmentFault` naming a detector that raised or returned something other than
        text or None: a broken detector must not pass for "nothing found".
        """
        flags = []
        for name, detector in self.detectors.items():
            evidence = _run(name, detector, judged)
            if evidence is not None:
                flags.append(
                    Flag(
                        detector=name,
                        evidence=evidence[:EVIDENCE_CHARS],
                        action=self.actions[name],
                    )
                )
        return tuple(flags)


def resolve_detectors(names: Iterable[str], environment: Environment) -> dict[str, Detector]:
    """Detectors by name: the environment's own first, then the generic `DETECTORS`.

    Raises `UserError` for an unknown name, with the closest one and the list of what exists.
    """
    known: dict[str, Detector] = {**DETECTORS, **environment.detectors()}
    resolved = {}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UserError(
                f"detectors.rollout: there is no detector {name!r}.{hint} "
                f"There are: {', '.join(sorted(known))}."
            )
        resolved[name] = known[name]
    return resolved


def build_screen(config: DetectorsConfig, environment: Environment) -> Screen:
    """The screen that a config asks for. Raises `UserError` as `resolve_detectors` does."""
    return Screen(
        resolve_detectors(config.rollout, environment),
        {name: detector.action for name, detector in config.rollout.items()},
    )


def _run(name: str, detector: Detector, judged: Judged) -> str | None:
    try:
        evidence = detector(judged)
    except RltrainError:
        raise
    except Exception as error:
        raise EnvironmentFault(
            f"Detector {name!r} is broken: it raised {type(error).__name__}: {error}"
        ) from error
    if evidence is not None and not isinstance(evidence, str):
        raise EnvironmentFault(
            f"Detector {name!r} is broken: it returned {type(evidence).__name__}, not text or None."
        )
    return evidence
