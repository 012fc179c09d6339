"""The second proof: learner and engine compute the same log-probabilities after a push.

Digests prove the transfer; on the CPU the engine keeps its weights in a packed form that cannot
be read back, so only its output shows that they were *loaded*. Two tests, both pure:

- distance: mean |engine - learner| <= tolerance;
- staleness: the engine is not closer to the learner's *previous* log-probabilities than to the
  present ones. One optimizer step often moves log-probabilities by less than any honest tolerance,
  and this test catches a skipped load all the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

PROBE_TOKENS = 48
_CLEAR = 4.0  # the learner must have moved this many times farther than the nearer distance

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 5e-2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One comparison, in nats."""

    mean_abs: float
    """Mean |engine - learner|; NaN if the engine gave a value that is not finite."""
    problem: str | None
    """What is wrong, as a phrase; None if the engine serves what the learner holds."""


def probe_ids(vocab_size: int, length: int = PROBE_TOKENS, seed: int = 20_24) -> list[int]:
    """A fixed sequence of token ids that touches many rows of the embedding."""
    draw = random.Random(seed)
    return [draw.randrange(vocab_size) for _ in range(length)]


@torch.no_grad()
def learner_logprobs(model: torch.nn.Module, ids: Sequence[int]) -> list[float]:
    """Log-probabilities (nats) of `ids[1:]` under the learner, without dropout: `[T - 1]`."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        logits = model(input_ids=torch.tensor([list(ids)], device=device)).logits
    finally:
        model.train(was_training)
    targets = torch.tensor(list(ids[1:]), device=device)
    logprobs = logits[0, :-1].float().log_softmax(-1)
    return [float(x) for x in logprobs.gather(-1, targets[:, None])[:, 0].tolist()]


def mean_abs(a: Sequence[float], b: Sequence[float]) -> float:
    """Mean |a - b|, with equal lengths; NaN if any value is."""
    return math.fsum(abs(x - y) for x, y in zip(a, b, strict=True)) / max(len(a), 1)


def compare(
    learner: Sequence[float],
    engine: Sequence[float],
    tolerance: float,
    previous: Sequence[float] | None = None,
) -> Probe:
    """Judge an engine's log-probabilities (`[T - 1]`, nats) against the learner's.

    `previous` are the learner's at the last proven push. With m how far the learner moved and
    d_new, d_old the engine's distances to the present and the previous values, the engine is
    stale if d_old < d_new and m > 4 d_old. By the triangle inequality an engine that loaded the
    weights meets this only if its numerical error exceeds 0.75 m and points at the old values."""
    if not all(map(math.isfinite, learner)):
        return Probe(
            mean_abs=math.nan, problem="the learner's own log-probabilities are not finite"
        )
    distance = mean_abs(learner, engine)
    if not math.isfinite(distance):
        return Probe(mean_abs=distance, problem="the engine's log-probabilities are not finite")
    if previous is not None:
        moved, old = mean_abs(learner, previous), mean_abs(previous, engine)
        if old < distance and moved > _CLEAR * old:
            problem = (
                f"it still serves the previous weights (mean |difference| {old:.2e} nats to those, "
                f"{distance:.2e} to the pushed ones)"
            )
            return Probe(mean_abs=distance, problem=problem)
    if distance > tolerance:
        worst = max(range(len(learner)), key=lambda i: abs(learner[i] - engine[i]))
        problem = (
            f"mean |log-probability difference| {distance:.2e} nats exceeds {tolerance:.2e} "
            f"(worst token: position {worst + 1}, learner {learner[worst]:.4f}, "
            f"engine {engine[worst]:.4f})"
        )
        return Probe(mean_abs=distance, problem=problem)
    return Probe(mean_abs=distance, problem=None)
