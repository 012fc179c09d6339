"""Generalised advantage estimation: by hand, and all sequences at once against one at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rltrain.algo.gae import gae, gae_sequence, whiten


def test_three_tokens_by_hand() -> None:
    # gamma 1/2, lambda 1/2: delta_2 = 4 - 2 = 2, delta_1 = 0 + 1 - 4 = -3, delta_0 = 1 + 2 - 1 = 2;
    # A_2 = 2, A_1 = -3 + 2/4 = -5/2, A_0 = 2 - (5/2)/4 = 11/8; R = A + V.
    rewards, values = torch.tensor([1.0, 0.0, 4.0]), torch.tensor([1.0, 4.0, 2.0])
    seq = torch.zeros(3, dtype=torch.long)
    advantages, returns = gae(rewards, values, seq, 1, gamma=0.5, lam=0.5)
    assert advantages.tolist() == [1.375, -2.5, 2.0]
    assert returns.tolist() == [2.375, 1.5, 4.0]


def test_a_tool_s_tokens_between_two_turns_are_passed_over_by_hand() -> None:
    # The three tokens above with two masked ones in between, whatever the critic says of those.
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0, 4.0])
    values = torch.tensor([1.0, 4.0, 99.0, -99.0, 2.0])
    mask = torch.tensor([True, True, False, False, True])
    advantages, returns = gae_sequence(rewards, values, mask, gamma=0.5, lam=0.5)
    assert advantages.tolist() == [1.375, -2.5, 0.0, 0.0, 2.0]
    assert returns.tolist() == [2.375, 1.5, 0.0, 0.0, 4.0]


def test_a_reward_on_a_masked_token_would_be_lost_and_is_refused() -> None:
    with pytest.raises(ValueError, match="a reward stands on a masked token"):
        gae_sequence(torch.tensor([0.0, 1.0]), torch.zeros(2), torch.tensor([True, False]))


def test_lambda_0_is_one_step_and_lambda_1_the_return_minus_the_value() -> None:
    rewards, values = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.25, 0.75])
    seq = torch.zeros(3, dtype=torch.long)
    one_step, _ = gae(rewards, values, seq, 1, gamma=1.0, lam=0.0)
    assert one_step.tolist() == [-0.25, 0.5, 0.25]  # V_1 - V_0, V_2 - V_1, 1 - V_2
    monte_carlo, returns = gae(rewards, values, seq, 1, gamma=1.0, lam=1.0)
    assert monte_carlo.tolist() == [0.5, 0.75, 0.25]  # 1 - V_t
    assert returns.tolist() == [1.0, 1.0, 1.0]


Sequence = list[tuple[float, float, bool]]
numbers = st.integers(-8, 8).map(lambda n: n / 4)
sequences = st.lists(
    st.lists(st.tuples(numbers, numbers, st.booleans()), max_size=7), min_size=1, max_size=5
)


def columns(tokens: Sequence) -> tuple[Tensor, Tensor, Tensor]:
    rewards = [reward if kept else 0.0 for reward, _, kept in tokens]
    values = [value for _, value, _ in tokens]
    mask = torch.tensor([kept for *_, kept in tokens], dtype=torch.bool)
    return torch.tensor(rewards).double(), torch.tensor(values).double(), mask


def naive(tokens: Sequence, gamma: float, lam: float) -> list[float]:
    """A_t = sum_l (gamma lam)^l delta_{t+l} over the kept tokens, as the paper writes it."""
    kept = [(reward, value) for reward, value, keep in tokens if keep]
    values = [value for _, value in kept] + [0.0]
    delta = [r + gamma * values[t + 1] - v for t, (r, v) in enumerate(kept)]
    return [
        sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, len(delta)))
        for t in range(len(delta))
    ]


@settings(max_examples=40, deadline=None)
@given(batch=sequences, gamma=st.sampled_from([1.0, 0.9]), lam=st.sampled_from([0.0, 0.95, 1.0]))
def test_all_at_once_one_by_one_and_the_paper_s_sum_agree(
    batch: list[Sequence], gamma: float, lam: float
) -> None:
    laid = [columns(tokens) for tokens in batch]
    flat_rewards = torch.cat([r[m] for r, _, m in laid])
    flat_values = torch.cat([v[m] for _, v, m in laid])
    counts = torch.tensor([int(m.sum()) for *_, m in laid])
    seq = torch.arange(len(laid)).repeat_interleave(counts)
    advantages, returns = gae(flat_rewards, flat_values, seq, len(laid), gamma, lam)
    single = [gae_sequence(*one, gamma, lam) for one in laid]
    for got, which in ((advantages, 0), (returns, 1)):
        each = [pair[which][one[2]] for pair, one in zip(single, laid, strict=True)]
        torch.testing.assert_close(got, torch.cat(each))
    expected = [a for tokens in batch for a in naive(tokens, gamma, lam)]
    torch.testing.assert_close(advantages, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(returns, advantages + flat_values)


def test_no_gradient_flows_into_the_critic_through_its_advantages() -> None:
    values = torch.tensor([0.5, 0.25], requires_grad=True)
    seq = torch.zeros(2, dtype=torch.long)
    advantages, returns = gae(torch.tensor([0.0, 1.0]), values, seq, 1)
    assert not advantages.requires_grad
    assert not returns.requires_grad


def test_no_tokens_give_no_advantages() -> None:
    empty = torch.zeros(0)
    advantages, returns = gae(empty, empty, torch.zeros(0, dtype=torch.long), 2)
    assert len(advantages) == len(returns) == 0


def test_whitening_by_hand() -> None:
    # 1 2 3: mean 2, unbiased std 1. The masked 50 has no vote.
    values, mask = torch.tensor([1.0, 50.0, 2.0, 3.0]), torch.tensor([True, False, True, True])
    torch.testing.assert_close(whiten(values, mask), torch.tensor([-1.0, 0.0, 0.0, 1.0]))
    torch.testing.assert_close(whiten(torch.tensor([1.0, 2, 3])), torch.tensor([-1.0, 0.0, 1.0]))


def test_what_has_no_spread_is_whitened_to_zero() -> None:
    assert whiten(torch.tensor([7.0])).tolist() == [0.0]
    assert whiten(torch.tensor([2.0, 2.0])).tolist() == [0.0, 0.0]
    assert whiten(torch.tensor([2.0, 5.0]), torch.tensor([False, False])).tolist() == [0.0, 0.0]


@settings(max_examples=30, deadline=None)
@given(st.lists(numbers, min_size=2, max_size=20).filter(lambda xs: len(set(xs)) > 1))
def test_whitened_values_have_mean_0_and_std_1(values: list[float]) -> None:
    white = whiten(torch.tensor(values, dtype=torch.float64))
    assert float(white.mean()) == pytest.approx(0, abs=1e-9)
    assert float(white.std()) == pytest.approx(1, abs=1e-6)
