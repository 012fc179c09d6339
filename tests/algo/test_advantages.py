"""Advantages by hand: every method on numbers small enough to check with a pencil."""

from __future__ import annotations

import inspect
import math
import re

import pytest

from rltrain.algo.advantages import ADVANTAGES, GREEDY, GroupRewards, bind

ROOT2, ROOT3, ROOT5 = math.sqrt(2), math.sqrt(3), math.sqrt(5)


def group(
    rewards: list[float],
    lengths: list[int] | None = None,
    greedy: float | None = 0.25,
    **components: list[float],
) -> GroupRewards:
    return GroupRewards(
        rewards=tuple(rewards),
        lengths=tuple(lengths or [1] * len(rewards)),
        components={name: tuple(values) for name, values in components.items()},
        greedy=greedy,
    )


# One group: rewards 1, 0, 0, lengths 3, 2, 1. The mean is 1/3, the unbiased std
# sqrt((4/9 + 1/9 + 1/9) / 2) = 1/sqrt(3).
ONE = group([1, 0, 0], [3, 2, 1], right=[1, 0, 0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean_centred", [2 / 3, -1 / 3, -1 / 3]),
        ("grpo", [2 / ROOT3, -1 / ROOT3, -1 / ROOT3]),
        ("rloo", [1.0, -0.5, -0.5]),  # 1 - mean(0, 0), 0 - mean(1, 0), 0 - mean(1, 0)
        ("maxrl", [2.0, -1.0, -1.0]),  # over the mean 1/3
        ("opo", [0.5, -0.5, -0.5]),  # baseline (3 * 1 + 2 * 0 + 1 * 0) / 6
        ("pass_at_k", [1.0, 0.0, 0.0]),  # 1 - max(0, 0); 0 - 0 for those that were not needed
        ("remax", [0.75, -0.25, -0.25]),  # the greedy answer earned 1/4
        ("reinforce", [1.0, 0.0, 0.0]),
        # Only one group: its std is that of the step.
        ("lite_ppo", [2 / ROOT3, -1 / ROOT3, -1 / ROOT3]),
        # Six tokens: 1 1 1 0 0 0. Mean 1/2, unbiased variance 6/4 / 5 = 3/10.
        ("reinforce_pp", [x / math.sqrt(0.3) for x in (0.5, -0.5, -0.5)]),
        # Tokens 2/3 2/3 2/3 -1/3 -1/3 -1/3: the same up to a shift that whitening takes off.
        ("reinforce_pp_baseline", [x / math.sqrt(0.3) for x in (0.5, -0.5, -0.5)]),
        ("gpg", [2 / 3, -1 / 3, -1 / 3]),  # every sibling is in a group with spread: alpha 1
        # One component, standardised to (2, -1, -1)/sqrt(3), whose std is 1 already.
        ("gdpo", [2 / ROOT3, -1 / ROOT3, -1 / ROOT3]),
    ],
)
def test_one_success_of_three_by_hand(name: str, expected: list[float]) -> None:
    assert ADVANTAGES[name]([ONE]) == [pytest.approx(expected, abs=1e-5)]


def test_every_advantage_is_worked_by_hand_above() -> None:
    (mark,) = test_one_success_of_three_by_hand.pytestmark
    assert {name for name, _ in mark.args[1]} == set(ADVANTAGES)


# Two groups: one solved half the time, one never. Five siblings, mean reward 1/5.
HALF, NEVER = group([1, 0], [1, 3]), group([0, 0, 0], [2, 2, 2])


def test_lite_ppo_divides_by_the_spread_of_the_step_and_not_of_the_group() -> None:
    # Std of 1 0 0 0 0: sqrt((16/25 + 4 * 1/25) / 4) = 1/sqrt(5); of the group alone 1/sqrt(2).
    half, never = ADVANTAGES["lite_ppo"]([HALF, NEVER])
    assert half == pytest.approx([ROOT5 / 2, -ROOT5 / 2], abs=1e-5)
    assert never == [0.0, 0.0, 0.0]
    assert ADVANTAGES["grpo"]([HALF])[0] == pytest.approx([1 / ROOT2, -1 / ROOT2], abs=1e-5)


def test_reinforce_pp_compares_with_the_whole_step_over_tokens() -> None:
    # Ten tokens, one of which carries 1: mean 1/10, variance (81/100 + 9/100) / 9 = 1/10.
    half, never = ADVANTAGES["reinforce_pp"]([HALF, NEVER])
    assert half == pytest.approx([0.9 * math.sqrt(10), -0.1 * math.sqrt(10)], abs=1e-5)
    assert never == pytest.approx([-0.1 * math.sqrt(10)] * 3, abs=1e-5)


def test_reinforce_pp_baseline_takes_the_group_mean_off_before_whitening() -> None:
    # Ten tokens: 1/2, then three of -1/2, then six of 0. Sum -1, so mean -1/10; squares sum to
    # 1, so the variance is (1 - 10 * 1/100) / 9 = 1/10.
    half, never = ADVANTAGES["reinforce_pp_baseline"]([HALF, NEVER])
    assert half == pytest.approx([0.6 * math.sqrt(10), -0.4 * math.sqrt(10)], abs=1e-5)
    assert never == pytest.approx([0.1 * math.sqrt(10)] * 3, abs=1e-5)


def test_gpg_scales_up_what_groups_without_spread_would_dilute() -> None:
    # Two of five siblings are in a group that teaches: alpha = 5/2.
    assert ADVANTAGES["gpg"]([HALF, NEVER]) == [[1.25, -1.25], [0.0, 0.0, 0.0]]
    assert ADVANTAGES["gpg"]([HALF, NEVER], f_norm=5.0) == [[0.25, -0.25], [0.0, 0.0, 0.0]]
    assert ADVANTAGES["gpg"]([NEVER]) == [[0.0, 0.0, 0.0]]


def test_gdpo_tells_apart_what_equal_sums_would_hide() -> None:
    # format 1 1 0 and right 0 1 1: sums 1 2 1. Standardised apart, std 1/sqrt(3) each:
    # format (1, 1, -2)/sqrt(3), right (-2, 1, 1)/sqrt(3). Weights 1 and 2: (-3, 3, 0)/sqrt(3),
    # std sqrt(3), so (-1, 1, 0) after whitening: 0 and 2 earned the same sum and differ now.
    both = group([1, 2, 1], format=[1, 1, 0], right=[0, 1, 1])
    assert ADVANTAGES["gdpo"]([both], right=2.0) == [pytest.approx([-1, 1, 0], abs=1e-5)]
    equal = ADVANTAGES["gdpo"]([both])[0]
    assert equal == pytest.approx([-1 / ROOT3, 2 / ROOT3, -1 / ROOT3], abs=1e-5)


def test_gdpo_whitens_over_siblings_of_all_groups() -> None:
    # Sums (1, -1)/sqrt(2) and (0, 0, 0): mean 0, squares 1/2 + 1/2, std sqrt(1/4) = 1/2.
    groups = [group([1, 0], right=[1, 0]), group([0, 0, 0], right=[0, 0, 0])]
    first, second = ADVANTAGES["gdpo"](groups)
    assert first == pytest.approx([ROOT2, -ROOT2], abs=1e-5)
    assert second == [0.0, 0.0, 0.0]


def test_maxrl_weighs_a_hard_prompt_more_and_never_turns_a_sign_round() -> None:
    hard, easy, below = ADVANTAGES["maxrl"](
        [group([1, 0, 0, 0]), group([1, 1, 1, 0]), group([0, -1, -1])]
    )
    assert hard == pytest.approx([3, -1, -1, -1])
    assert easy == pytest.approx([1 / 3, 1 / 3, 1 / 3, -1])
    assert below == [0, 0, 0]


def test_pass_at_k_pays_only_a_best_answer_that_is_alone_at_the_top() -> None:
    alone, tied = ADVANTAGES["pass_at_k"]([group([0.25, 1, 0.5]), group([1, 1, 0])])
    assert alone == [0, 0.5, 0]
    assert tied == [0, 0, 0]
    # Divided by std(1, 0) = 1/sqrt(2), as verl does.
    scaled = ADVANTAGES["pass_at_k"]([group([1, 0])], scale=1.0)
    assert scaled == [pytest.approx([ROOT2, 0], abs=1e-5)]


def test_the_std_of_grpo_can_be_that_of_the_population() -> None:
    # Mean 1/2, population std 1/2.
    assert ADVANTAGES["grpo"]([group([1, 0])], ddof=0.0, eps=0.0) == [[1, -1]]


def test_grpo_forgets_the_scale_of_rewards_and_mean_centred_keeps_it() -> None:
    small, large = group([0.1, 0]), group([1, 0])
    assert ADVANTAGES["grpo"]([small])[0] == pytest.approx(ADVANTAGES["grpo"]([large])[0], rel=1e-4)
    assert ADVANTAGES["mean_centred"]([small]) == [pytest.approx([0.05, -0.05])]


@pytest.mark.parametrize("name", ["grpo", "rloo", "mean_centred", "pass_at_k", "opo"])
def test_a_single_sibling_has_no_baseline_and_so_no_advantage(name: str) -> None:
    assert ADVANTAGES[name]([group([1.0])]) == [[0.0]]


def test_remax_without_a_greedy_answer_is_refused_and_never_compared_with_0() -> None:
    with pytest.raises(ValueError, match="needs the reward of a greedy answer"):
        ADVANTAGES["remax"]([group([1, 0], greedy=None)])
    assert {"remax"} == GREEDY


def test_arguments_are_bound_and_unknown_ones_refused() -> None:
    assert bind("gpg", {"f_norm": 2.0})([HALF]) == [[0.25, -0.25]]
    both = group([1, 2, 1], format=[1, 1, 0], right=[0, 1, 1])
    weighed = bind("gdpo", {"right": 2.0}, ["format", "right"])([both])
    assert weighed == [pytest.approx([-1, 1, 0], abs=1e-5)]
    with pytest.raises(ValueError, match="rloo has no argument 'eps'; it has: none"):
        bind("rloo", {"eps": 1.0})
    with pytest.raises(ValueError, match="gdpo has no argument 'wrong'; it has: eps, format"):
        bind("gdpo", {"wrong": 1.0}, ["format"])


@pytest.mark.parametrize("name", list(ADVANTAGES))
def test_every_advantage_says_its_formula_and_where_it_is_from(name: str) -> None:
    doc = inspect.getdoc(ADVANTAGES[name])
    assert doc is not None
    assert " = " in doc.splitlines()[0] or "then (x - mean)" in doc
    last = doc.splitlines()[-1]
    assert re.fullmatch(r"Paper: .+, (arXiv \d{4}\.\d{5}|doi \S+)", last), last
