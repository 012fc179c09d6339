"""Advantages, by hand and by what must hold for any rewards."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rltrain.algo.advantages import ADVANTAGES

rewards_of_a_group = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=16)
SHIFT_INVARIANT = ("mean_centred", "grpo", "rloo")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean_centred", [2 / 3, -1 / 3, -1 / 3]),
        ("grpo", [2 / math.sqrt(3), -1 / math.sqrt(3), -1 / math.sqrt(3)]),  # std = 1 / sqrt(3)
        ("rloo", [1.0, -0.5, -0.5]),  # 1 - mean(0, 0), 0 - mean(1, 0), 0 - mean(1, 0)
        ("maxrl", [2.0, -1.0, -1.0]),  # the mean is 1/3
        ("reinforce", [1.0, 0.0, 0.0]),
    ],
)
def test_one_success_of_three_by_hand(name: str, expected: list[float]) -> None:
    assert ADVANTAGES[name]([1.0, 0.0, 0.0]) == pytest.approx(expected, abs=3e-6)


def test_no_advantage_is_left_out_of_the_hand_worked_ones() -> None:
    assert set(ADVANTAGES) == {"mean_centred", "grpo", "rloo", "maxrl", "reinforce"}


@pytest.mark.parametrize("name", ["mean_centred", "grpo", "rloo", "maxrl"])
@pytest.mark.parametrize("reward", [0.0, 0.5, 1.0])
def test_a_group_without_spread_has_advantages_of_exactly_zero(name: str, reward: float) -> None:
    assert ADVANTAGES[name]([reward] * 4) == [0.0] * 4


def test_maxrl_weighs_a_hard_prompt_more() -> None:
    hard = ADVANTAGES["maxrl"]([1.0, 0.0, 0.0, 0.0])
    easy = ADVANTAGES["maxrl"]([1.0, 1.0, 1.0, 0.0])
    assert hard == pytest.approx([3.0, -1.0, -1.0, -1.0])
    assert easy == pytest.approx([1 / 3, 1 / 3, 1 / 3, -1.0])


def test_grpo_forgets_the_scale_of_rewards_and_mean_centred_keeps_it() -> None:
    assert ADVANTAGES["grpo"]([0.1, 0.0]) == pytest.approx(ADVANTAGES["grpo"]([1, 0]), rel=1e-4)
    assert ADVANTAGES["mean_centred"]([0.1, 0.0]) == pytest.approx([0.05, -0.05])


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_a_single_sibling_has_no_baseline_and_so_no_advantage(name: str) -> None:
    assert ADVANTAGES[name]([1.0]) == [0.0]


@given(rewards_of_a_group)
def test_mean_centred_sums_to_zero(rewards: list[float]) -> None:
    assert sum(ADVANTAGES["mean_centred"](rewards)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", SHIFT_INVARIANT)
@given(rewards=rewards_of_a_group, shift=st.floats(-2, 2))
def test_a_constant_added_to_every_reward_changes_nothing(
    name: str, rewards: list[float], shift: float
) -> None:
    rewards = [round(r, 3) for r in rewards]  # a spread of 1e-38 is lost when added to 1
    moved = ADVANTAGES[name]([r + shift for r in rewards])
    assert moved == pytest.approx(ADVANTAGES[name](rewards), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", list(ADVANTAGES))
@given(data=st.data(), rewards=rewards_of_a_group)
def test_siblings_in_another_order_get_the_same_advantages(
    name: str, data: st.DataObject, rewards: list[float]
) -> None:
    order = data.draw(st.permutations(range(len(rewards))))
    plain = ADVANTAGES[name](rewards)
    permuted = ADVANTAGES[name]([rewards[i] for i in order])
    assert permuted == pytest.approx([plain[i] for i in order], rel=1e-9, abs=1e-12)
