"""What judges cost: tokens by the server's own count, and money where a price is configured.

A reply without a usage block, and a request that may have been worked on without a reply, cost an
unknown amount. They are counted as unknown and never as 0: beside `judge/usage_unknown` the sums
are what is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rltrain.config.judge import PriceConfig

MILLION = 1e6
PREFIX = "judge/"
STEP_KEYS = ("tokens_in", "tokens_out", "cost", "usage_unknown", "disagreed", "compared", "flips",
             "compared_pairs", "left_out")  # fmt: skip
"""Counters that a step's metrics show."""
RATES = {
    "disagreement_rate": ("disagreed", "compared"),
    "position_flip_rate": ("flips", "compared_pairs"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one request."""

    tokens_in: int
    tokens_out: int


def usage_of(reply: object) -> Usage | None:
    """The usage block of a chat completion; None if there is none, or it makes no sense."""
    block = reply.get("usage") if isinstance(reply, Mapping) else None
    if not isinstance(block, Mapping):
        return None
    counts = [block.get("prompt_tokens"), block.get("completion_tokens")]
    given = [n for n in counts if type(n) is int and n >= 0]  # True is no count
    return Usage(tokens_in=given[0], tokens_out=given[1]) if len(given) == 2 else None


@dataclass(slots=True, kw_only=True)
class Spending:
    """Counters since construction."""

    price: PriceConfig | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    known: int = 0
    """Requests whose usage the server told."""
    unknown: int = 0
    """Requests that may have cost something, without a word about how much."""

    def add(self, usage: Usage | None) -> None:
        """One request. None is unknown."""
        if usage is None:
            self.unknown += 1
            return
        self.known += 1
        self.tokens_in += usage.tokens_in
        self.tokens_out += usage.tokens_out

    def metrics(self) -> dict[str, float]:
        """`judge/usage_unknown` (requests); `judge/tokens_in`, `judge/tokens_out` and, with a
        price, `judge/cost`, unless nothing at all is known about what was sent."""
        out = {f"{PREFIX}usage_unknown": float(self.unknown)}
        if self.unknown and not self.known:
            return out
        out[f"{PREFIX}tokens_in"] = float(self.tokens_in)
        out[f"{PREFIX}tokens_out"] = float(self.tokens_out)
        if self.price is not None:
            spent = self.tokens_in * self.price.input + self.tokens_out * self.price.output
            out[f"{PREFIX}cost"] = spent / MILLION
        return out


class StepSpending:
    """Cumulative counters of workers -> what was added since the step before."""

    def __init__(self) -> None:
        self._before: dict[str, dict[str, float]] = {}

    def __call__(self, workers: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Metrics of a step: the counters of `STEP_KEYS` that any worker has, and `RATES` of them.

        workers: the latest counters of each. One that was started again counts from 0: a counter
        that fell is new as a whole."""
        out: dict[str, float] = {}
        for worker, counters in workers.items():
            before = self._before.get(worker, {})
            anew = any(counters.get(key, 0.0) < value for key, value in before.items())
            for name in STEP_KEYS:
                key = PREFIX + name
                if key in counters:
                    more = counters[key] - (0.0 if anew else before.get(key, 0.0))
                    out[key] = out.get(key, 0.0) + more
            self._before[worker] = {
                key: counters[key] for name in STEP_KEYS if (key := PREFIX + name) in counters
            }
        for name, (part, whole) in RATES.items():
            if out.get(PREFIX + whole):
                out[PREFIX + name] = out[PREFIX + part] / out[PREFIX + whole]
        return out
