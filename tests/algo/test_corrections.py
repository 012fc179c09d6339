"""Corrections for trainer/engine mismatch, and its measurement, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rltrain.algo.corrections import CORRECTIONS, mismatch_sums
from rltrain.algo.ratio import log_ratio, sequence_mean, sequence_sum

SEQ = [0, 0, 1]


def weights(name: str, rho: list[float], seq: list[int], **args: float) -> list[float]:
    """The correction's weights for tokens with these ratios pi_old / mu."""
    behaviour = torch.full((len(rho),), -2.0, dtype=torch.float64)
    old = behaviour + torch.tensor(rho, dtype=torch.float64).log()
    out = CORRECTIONS[name](old, behaviour, torch.tensor(seq), max(seq) + 1, **args)
    return [float(w) for w in out]


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("none", {}, [1, 1, 1]),
        ("token_tis", {"cap": 2.0}, [2, 0.5, 1.5]),
        ("sequence_tis", {"cap": 1.75}, [1.75, 1.75, 1.5]),  # products 4 * 0.5 = 2 and 1.5
        ("sequence_mis", {"cap": 1.75}, [0, 0, 1.5]),
        ("sequence_mis", {"cap": 2.5}, [2, 2, 1.5]),
        ("icepop", {"low": 0.6, "high": 5.0}, [4, 0, 1.5]),
        ("icepop", {"low": 0.4, "high": 3.0}, [0, 0.5, 1.5]),
        ("geometric_rejection", {"low": 0.5, "high": 1.45}, [1, 1, 0]),  # means sqrt(2), 1.5
        ("geometric_rejection", {"low": 1.45, "high": 1.55}, [0, 0, 1]),
    ],
)
def test_weights_by_hand(name: str, args: dict[str, float], expected: list[float]) -> None:
    assert weights(name, [4.0, 0.5, 1.5], SEQ, **args) == pytest.approx(expected)


def test_every_correction_is_tested_here() -> None:
    assert set(CORRECTIONS) == {
        "none", "token_tis", "sequence_tis", "sequence_mis", "icepop", "geometric_rejection",
    }  # fmt: skip


@pytest.mark.parametrize("name", list(CORRECTIONS))
def test_an_engine_that_agrees_exactly_is_given_weight_one(name: str) -> None:
    assert weights(name, [1.0, 1.0, 1.0], SEQ) == [1.0, 1.0, 1.0]


def test_mismatch_by_hand() -> None:
    behaviour = torch.tensor([-1.0, -1.0], dtype=torch.float64)
    sums = mismatch_sums(behaviour + torch.tensor([2.0, 0.5], dtype=torch.float64).log(), behaviour)
    assert float(sums["mismatch/mean_abs_logprob"]) == pytest.approx(2 * math.log(2))
    assert float(sums["mismatch/k1"]) == pytest.approx(0)
    # (2 - 1 - ln 2) + (0.5 - 1 + ln 2)
    assert float(sums["mismatch/k3"]) == pytest.approx(0.5)
    assert float(sums["mismatch/max_abs_logprob"]) == pytest.approx(math.log(2))


def test_equal_log_probabilities_have_a_ratio_of_exactly_one() -> None:
    values = torch.tensor([-0.1234567, -7.7, -1e-9])
    assert log_ratio(values, values.clone()).exp().tolist() == [1.0, 1.0, 1.0]


def test_sums_and_means_over_sequences_by_hand() -> None:
    values = torch.tensor([1.0, 3.0, 5.0])
    seq = torch.tensor([0, 0, 2])
    assert sequence_sum(values, seq, 3).tolist() == [4.0, 0.0, 5.0]
    assert sequence_mean(values, seq, 3).tolist() == [2.0, 0.0, 5.0]
