"""Aggregation: the weight of each token's loss. The loss of a step is sum_t weight_t * loss_t, so
that it does not depend on how the step is split into micro-batches and ranks: every denominator
below is counted over the whole step, over all ranks, before the first forward pass.

T is the number of trained tokens of the token's own sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Aggregation = Callable[[Sequence[int], int, int, int], list[float]]


def token_mean(lengths_S: Sequence[int], tokens: int, sequences: int, horizon: int) -> list[float]:
    """1 / tokens of the step

    Long answers weigh more.

    Paper: DAPO, arXiv 2503.14476, eq. 8
    """
    return [1 / max(tokens, 1)] * len(lengths_S)


def sequence_mean(
    lengths_S: Sequence[int], tokens: int, sequences: int, horizon: int
) -> list[float]:
    """1 / (sequences of the step * T)

    Each answer weighs the same; long wrong answers are punished less per token.

    Paper: GRPO, arXiv 2402.03300, eq. 3
    """
    return [1 / (max(sequences, 1) * max(length, 1)) for length in lengths_S]


def sequence_sum(
    lengths_S: Sequence[int], tokens: int, sequences: int, horizon: int
) -> list[float]:
    """1 / sequences of the step

    Each answer weighs by its length, whatever the others' lengths are. With `gspo` it is LUSPO.

    Paper: LUSPO, arXiv 2602.05261
    """
    return [1 / max(sequences, 1)] * len(lengths_S)


def constant(lengths_S: Sequence[int], tokens: int, sequences: int, horizon: int) -> list[float]:
    """1 / (sequences of the step * horizon)

    No length bias: `horizon` is the token budget of an answer.

    Paper: Dr. GRPO, arXiv 2503.20783, sec. 3.2
    """
    return [1 / (max(sequences, 1) * max(horizon, 1))] * len(lengths_S)


AGGREGATIONS: dict[str, Aggregation] = {
    "token_mean": token_mean,
    "sequence_mean": sequence_mean,
    "sequence_sum": sequence_sum,
    "constant": constant,
}
"""name -> f(lengths of these sequences, tokens of the step, sequences of the step, token budget)
giving one weight per sequence, which each of its tokens carries."""
