"""Denominators, by hand: two sequences of this micro-batch out of four of the whole step."""

from __future__ import annotations

import pytest

from rltrain.algo.aggregation import AGGREGATIONS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("token_mean", [1 / 10, 1 / 10]),
        ("sequence_mean", [1 / (4 * 2), 1 / (4 * 3)]),
        ("sequence_sum", [1 / 4, 1 / 4]),
        ("constant", [1 / (4 * 8), 1 / (4 * 8)]),
    ],
)
def test_weights_of_sequences_of_two_and_three_tokens(name: str, expected: list[float]) -> None:
    assert AGGREGATIONS[name]([2, 3], 10, 4, 8) == pytest.approx(expected)


def test_every_aggregation_is_tested_here() -> None:
    assert set(AGGREGATIONS) == {"token_mean", "sequence_mean", "sequence_sum", "constant"}


@pytest.mark.parametrize("name", ["token_mean", "sequence_mean"])
def test_the_weights_of_a_whole_step_sum_to_one(name: str) -> None:
    lengths = [1, 4, 7]
    weights = AGGREGATIONS[name](lengths, sum(lengths), len(lengths), 16)
    assert sum(w * n for w, n in zip(weights, lengths, strict=True)) == pytest.approx(1)
