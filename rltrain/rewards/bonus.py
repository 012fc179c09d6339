"""Small rewards for how a right answer was given: short, in few turns, cheap to produce.

A bonus is a function from an episode to [0, 1]. It is paid to answers that pass every gate with
full score, and it decides a share (`weight`) of the passing band:

    earned = (1 - sum of weights) * score + [score = 1] * sum of weight * bonus      in [0, 1]

So the best answer with no bonus earns what any lesser answer can earn at most, and none leaves
the band: a bonus orders the best answers among themselves and nothing else.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping

from rltrain.algo.named import find
from rltrain.config.rewards import BonusConfig
from rltrain.errors import EnvironmentFault, RltrainError, UserError
from rltrain.rewards.verdicts import raised, require_unit
from rltrain.types import Episode

Bonus = Callable[..., float]


def brevity(episode: Episode, *, limit: float = 400.0) -> float:
    """max(0, 1 - characters / limit), over everything that the policy wrote."""
    return max(0.0, 1.0 - sum(len(turn.text) for turn in episode.turns) / limit)


def turns(episode: Episode, *, limit: float = 10.0) -> float:
    """max(0, 1 - (turns - 1) / limit)."""
    return max(0.0, 1.0 - (len(episode.turns) - 1) / limit)


def latency(
    episode: Episode, *, limit_s: float = 10.0, token_s: float = 0.02, turn_s: float = 0.2
) -> float:
    """max(0, 1 - seconds / limit_s) with seconds = token_s * tokens + turn_s * turns.

    Nominal seconds and not the clock's: a busy machine must not become a reward."""
    tokens = sum(len(turn.completion_ids) for turn in episode.turns)
    return max(0.0, 1.0 - (token_s * tokens + turn_s * len(episode.turns)) / limit_s)


BONUSES: dict[str, Bonus] = {"brevity": brevity, "turns": turns, "latency": latency}


class Bonuses:
    """The bonuses of a run."""

    def __init__(self, config: Mapping[str, BonusConfig]) -> None:
        """Raises `UserError` for a name or an argument that no function has."""
        self._parts: list[tuple[str, float, Callable[[Episode], float]]] = []
        for name, part in config.items():
            function = find("rewards.bonus", part.function or name, BONUSES)
            try:
                inspect.signature(function).bind(None, **part.args)
            except TypeError as error:
                raise UserError(f"config rewards.bonus.{name}.args: {error}") from error
            self._parts.append((name, part.weight, functools.partial(function, **part.args)))
        self.weight = sum(weight for _, weight, _ in self._parts)

    def earned(self, score: float, episode: Episode) -> float:
        """A passing score in [0, 1] with its bonuses, in [0, 1].

        Raises `EnvironmentFault` naming a bonus that raised or gave no number in [0, 1]."""
        if not self._parts:
            return score
        kept = (1.0 - self.weight) * score
        if score < 1.0:
            return kept
        return min(1.0, kept + sum(w * _value(name, f, episode) for name, w, f in self._parts))


def _value(name: str, function: Callable[[Episode], float], episode: Episode) -> float:
    try:
        value = function(episode)
    except RltrainError:
        raise
    except Exception as error:
        raise EnvironmentFault(f"Bonus {name!r} is broken: it {raised(error)}") from error
    return require_unit(value, f"Bonus {name!r}")
