"""Advantages: what must hold for any rewards, or is documented not to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rltrain.algo.advantages import ADVANTAGES, GroupRewards

NAMES = list(ADVANTAGES)
LAW = settings(max_examples=30, deadline=None)
SHIFT = {"reinforce", "maxrl"}
"""A constant added to all rewards of a group changes these; and these two compare with a step, so
that only a constant added to all groups changes nothing:"""
OVER_STEP = {"reinforce_pp", "lite_ppo"}
KEEP_SCALE = {"mean_centred", "rloo", "opo", "pass_at_k", "remax", "reinforce", "gpg"}
"""Twice the reward, twice the advantage; the others forget the scale."""
SUM_TO_ZERO = {"mean_centred", "grpo", "rloo", "maxrl", "lite_ppo", "gpg"}
ZERO_WITHOUT_SPREAD = {*SUM_TO_ZERO, "opo", "pass_at_k"}
"""A group whose siblings earned the same gets exactly 0, whatever the rest of the step did."""

rewards = st.integers(0, 100).map(lambda n: n / 100)


@st.composite
def groups(draw: st.DrawFn, sizes: tuple[int, int] = (2, 6)) -> GroupRewards:
    count = draw(st.integers(*sizes))

    def some(values: st.SearchStrategy[float]) -> tuple[float, ...]:
        return tuple(draw(st.lists(values, min_size=count, max_size=count)))

    lengths = draw(st.lists(st.integers(1, 50), min_size=count, max_size=count))
    first, second = some(rewards), some(rewards)
    return GroupRewards(
        rewards=tuple(a + b for a, b in zip(first, second, strict=True)),
        lengths=tuple(lengths),
        components={"first": first, "second": second},
        greedy=draw(rewards),
    )


steps = st.lists(groups(), min_size=1, max_size=4)


def moved(group: GroupRewards, scale: float = 1.0, shift: float = 0.0) -> GroupRewards:
    def move(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(scale * value + shift for value in values)

    assert group.greedy is not None
    return replace(
        group,
        rewards=move(group.rewards),
        components={name: move(values) for name, values in group.components.items()},
        greedy=scale * group.greedy + shift,
    )


def same(left: list[list[float]], right: list[list[float]], rel: float = 1e-6) -> bool:
    return all(
        row == pytest.approx(other, rel=rel, abs=1e-8)
        for row, other in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SHIFT])
@LAW
@given(step=steps, shift=st.sampled_from([-1.5, 0.25, 2.0]))
def test_a_constant_added_to_every_reward_of_the_step_changes_nothing(
    name: str, step: list[GroupRewards], shift: float
) -> None:
    advantage = ADVANTAGES[name]
    assert same(advantage([moved(g, shift=shift) for g in step]), advantage(step))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SHIFT | OVER_STEP])
@LAW
@given(step=steps, shift=st.sampled_from([-1.5, 0.25, 2.0]))
def test_a_constant_added_to_every_reward_of_one_group_changes_nothing(
    name: str, step: list[GroupRewards], shift: float
) -> None:
    advantage = ADVANTAGES[name]
    assert same(advantage([moved(step[0], shift=shift), *step[1:]]), advantage(step))


@pytest.mark.parametrize("name", sorted(SHIFT | OVER_STEP))
def test_those_left_out_of_the_law_above_do_change(name: str) -> None:
    one = GroupRewards(rewards=(1.0, 0.0), lengths=(1, 1))
    advantage = ADVANTAGES[name]
    shifted = replace(one, rewards=(2.0, 1.0))
    assert not same(advantage([shifted, one]), advantage([one, one]))


@pytest.mark.parametrize("name", NAMES)
@LAW
@given(step=steps, scale=st.sampled_from([0.5, 3.0]))
def test_the_scale_of_the_rewards_is_kept_or_forgotten_as_documented(
    name: str, step: list[GroupRewards], scale: float
) -> None:
    advantage = ADVANTAGES[name]
    # Two opposite components cancel but for eps, and gdpo's whitening would blow that up.
    step = [replace(g, components={"first": g.components["first"]}) for g in step]
    factor = scale if name in KEEP_SCALE else 1.0
    expected = [[factor * a for a in row] for row in advantage(step)]
    # eps in the denominator: a spread of 1/100 in 6 siblings is at least 4e-3, eps 1e-6.
    assert same(advantage([moved(g, scale=scale) for g in step]), expected, rel=2e-3)


@pytest.mark.parametrize("name", NAMES)
@LAW
@given(data=st.data(), step=steps)
def test_siblings_and_groups_in_another_order_get_the_same_advantages(
    name: str, data: st.DataObject, step: list[GroupRewards]
) -> None:
    orders = [data.draw(st.permutations(range(len(g.rewards)))) for g in step]
    permuted = [
        replace(
            g,
            rewards=tuple(g.rewards[i] for i in order),
            lengths=tuple(g.lengths[i] for i in order),
            components={n: tuple(v[i] for i in order) for n, v in g.components.items()},
        )
        for g, order in zip(step, orders, strict=True)
    ]
    plain = ADVANTAGES[name](step)
    expected = [[row[i] for i in order] for row, order in zip(plain, orders, strict=True)]
    assert same(ADVANTAGES[name](permuted[::-1]), expected[::-1])


@pytest.mark.parametrize("name", sorted(SUM_TO_ZERO))
@LAW
@given(step=steps)
def test_the_advantages_of_a_group_sum_to_zero(name: str, step: list[GroupRewards]) -> None:
    for row in ADVANTAGES[name](step):
        assert sum(row) == pytest.approx(0, abs=1e-9 * max(map(abs, row), default=1) + 1e-9)


@pytest.mark.parametrize("name", ["reinforce_pp", "reinforce_pp_baseline"])
@LAW
@given(step=steps)
def test_over_all_tokens_the_whitened_advantages_sum_to_zero(
    name: str, step: list[GroupRewards]
) -> None:
    rows = ADVANTAGES[name](step)
    total = sum(
        length * value
        for group, row in zip(step, rows, strict=True)
        for length, value in zip(group.lengths, row, strict=True)
    )
    assert total == pytest.approx(0, abs=1e-6)


@LAW
@given(step=steps)
def test_over_all_siblings_gdpo_sums_to_zero(step: list[GroupRewards]) -> None:
    assert sum(map(sum, ADVANTAGES["gdpo"](step))) == pytest.approx(0, abs=1e-6)


@LAW
@given(step=steps)
def test_opo_sums_to_zero_over_the_tokens_of_a_group(step: list[GroupRewards]) -> None:
    for group, row in zip(step, ADVANTAGES["opo"](step), strict=True):
        total = sum(n * a for n, a in zip(group.lengths, row, strict=True))
        assert total == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", sorted(ZERO_WITHOUT_SPREAD))
@LAW
@given(step=steps, reward=st.sampled_from([0.0, 0.1, 1 / 3, 1.0]), size=st.integers(2, 7))
def test_a_group_without_spread_has_advantages_of_exactly_zero(
    name: str, step: list[GroupRewards], reward: float, size: int
) -> None:
    flat = GroupRewards(rewards=(reward,) * size, lengths=tuple(range(1, size + 1)))
    assert ADVANTAGES[name]([*step, flat])[-1] == [0.0] * size


@pytest.mark.parametrize("name", NAMES)
def test_a_step_without_any_group_has_no_advantages(name: str) -> None:
    assert ADVANTAGES[name]([]) == []


@pytest.mark.parametrize("name", [n for n in NAMES if n not in {"reinforce", "remax"}])
def test_a_step_without_any_spread_teaches_nothing(name: str) -> None:
    flat = GroupRewards(rewards=(1.0, 1.0), lengths=(1, 5), components={"first": (1.0, 1.0)})
    assert ADVANTAGES[name]([flat, flat]) == [[0.0, 0.0]] * 2
