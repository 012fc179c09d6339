"""Measures of mismatch, the proximal policies and the entropy mask, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rltrain.algo.entropy import high_entropy
from rltrain.algo.mismatch import by_lag, effective_share, mismatch
from rltrain.algo.proximal import PROXIMAL, Policies
from rltrain.algo.ratio import log_ratio, sequence_mean, sequence_ratio, sequence_sum
from tests.algo.scored_tokens import scored_tokens, tensor

LN2 = math.log(2)


def test_mismatch_by_hand() -> None:
    # trainer / mu = 2, 1/2 in one sequence (product 1) and 3 in another.
    scored = scored_tokens([1.0] * 3, [1.0] * 3, [0, 0, 1], rho=[2.0, 0.5, 3.0])
    values = mismatch(scored)
    ln3 = math.log(3)
    assert values["mismatch/mean_abs_logprob"].tolist() == pytest.approx([LN2, LN2, ln3])
    assert values["mismatch/k1"].tolist() == pytest.approx([-LN2, LN2, -ln3])
    assert values["mismatch/k2"].tolist() == pytest.approx([LN2**2 / 2, LN2**2 / 2, ln3**2 / 2])
    assert values["mismatch/k3"].tolist() == pytest.approx([1 - LN2, LN2 - 0.5, 2 - ln3])
    assert values["mismatch/chi2_token"].tolist() == pytest.approx([3.0, -0.75, 8.0])
    assert values["mismatch/chi2_sequence"].tolist() == pytest.approx([0.0, 8.0])
    assert values["mismatch/rho"].tolist() == pytest.approx([2.0, 0.5, 3.0])
    assert values["mismatch/rho_sq"].tolist() == pytest.approx([4.0, 0.25, 9.0])


def test_a_drift_of_the_policy_within_the_step_is_no_mismatch() -> None:
    values = mismatch(scored_tokens([5.0, 0.1], [1.0, 1.0]))
    assert all(value.abs().max() < 1e-12 for name, value in values.items() if "rho" not in name)


def test_mismatch_by_lag_tells_age_from_kernels() -> None:
    scored = scored_tokens([1.0] * 3, [1.0] * 3, rho=[2.0, 1.0, 0.5])
    values = by_lag(scored, torch.tensor([2, 0, 2]))
    assert {name: v.tolist() for name, v in values.items()} == {
        "mismatch/mean_abs_logprob/lag_0": [0.0],
        "mismatch/mean_abs_logprob/lag_2": pytest.approx([LN2, LN2]),
    }


def test_effective_share_is_one_for_equal_weights_and_one_nth_for_a_single_one() -> None:
    assert effective_share(0.3, 0.09) == pytest.approx(1)
    assert effective_share(1 / 8, 1 / 8) == pytest.approx(1 / 8)  # weights 1, 0, 0, ..., 0
    assert effective_share(0.0, 0.0) == 0.0


def test_equal_log_probabilities_have_a_ratio_of_exactly_one() -> None:
    values = torch.tensor([-0.1234567, -7.7, -1e-9])
    assert log_ratio(values, values.clone()).exp().tolist() == [1.0, 1.0, 1.0]


def test_sums_means_and_products_over_sequences_by_hand() -> None:
    values = torch.tensor([1.0, 3.0, 5.0])
    seq = torch.tensor([0, 0, 2])
    assert sequence_sum(values, seq, 3).tolist() == [4.0, 0.0, 5.0]
    assert sequence_mean(values, seq, 3).tolist() == [2.0, 0.0, 5.0]
    old = tensor([0.2, 0.5, 0.1]).log()
    ratios = sequence_ratio(tensor([0.4, 0.25, 0.3]).log(), old, seq, 3)
    assert ratios.tolist() == pytest.approx([1.0, 1.0, 3.0])


def test_a_long_sequence_cannot_overflow_its_product() -> None:
    old, new = torch.full((100,), -10.0), torch.zeros(100)
    ratios = sequence_ratio(new, old, torch.zeros(100, dtype=torch.long), 1)
    assert ratios.tolist() == pytest.approx([math.exp(20)])


def policies(lag: list[int]) -> Policies:
    count = len(lag)
    return Policies(
        new=tensor([-1.0] * count),
        trainer=tensor([-1.5] * count),
        behaviour=tensor([-3.0] * count),
        lag=torch.tensor(lag),
    )


def test_the_proximal_policy_is_the_trainers_the_engines_or_in_between() -> None:
    assert set(PROXIMAL) == {"recompute", "behaviour", "approximate"}
    assert PROXIMAL["recompute"](policies([0, 3])).tolist() == [-1.5, -1.5]
    assert PROXIMAL["behaviour"](policies([0, 3])).tolist() == [-3.0, -3.0]
    # a = (lag - 1) / lag: 0, 0, 1/2, 3/4 of the way from -3 to -1
    assert PROXIMAL["approximate"](policies([0, 1, 2, 4])).tolist() == [-3.0, -3.0, -2.0, -1.5]


def test_high_entropy_keeps_the_asked_share() -> None:
    entropy = tensor([0.1, 0.9, 0.5, 0.2, 0.3, 0.8, 0.7, 0.6, 0.4, 0.0])
    assert high_entropy(entropy, 0.2).nonzero().flatten().tolist() == [1, 5]
    assert high_entropy(entropy, 1.0).tolist() == [1.0] * 10
    assert high_entropy(entropy[:0], 0.2).tolist() == []


@given(st.lists(st.floats(0, 5), min_size=1, max_size=40, unique=True), st.floats(0.01, 0.99))
def test_high_entropy_never_keeps_a_token_below_one_that_it_leaves_out(
    values: list[float], share: float
) -> None:
    kept = high_entropy(tensor(values), share).bool()
    inside, outside = tensor(values)[kept], tensor(values)[~kept]
    assert len(inside) >= 1
    assert not len(outside) or inside.min() > outside.max()
