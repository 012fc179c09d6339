"""Long answers: the soft penalty by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rltrain.algo.shaping import Overlong, soft_overlong


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, 0.0), (16_384, 0.0), (17_408, -0.25), (18_432, -0.5), (20_480, -1.0), (20_481, -1.0)],
)
def test_the_penalty_of_dapo_s_own_setting(length: int, expected: float) -> None:
    # 20,480 tokens at most, 4,096 of them in the zone that begins behind 16,384.
    assert soft_overlong(length, 20_480, 4_096) == expected


def test_without_a_zone_only_what_is_beyond_the_horizon_is_punished() -> None:
    assert [soft_overlong(n, 8, 0) for n in (7, 8, 9)] == [0, 0, -1]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 100), st.integers(0, 100), st.integers(0, 300))
def test_one_token_more_never_costs_less_nor_a_jump(horizon: int, cache: int, length: int) -> None:
    cache = min(cache, horizon)
    here, next_one = (soft_overlong(n, horizon, cache) for n in (length, length + 1))
    assert -1 <= next_one <= here <= 0
    assert here - next_one <= 1 / max(cache, 1) + 1e-12


def test_the_penalty_is_off_by_default_and_scales() -> None:
    assert Overlong(horizon=4).shaping(100) == 0
    shaped = Overlong(horizon=4, cache=2, penalty=0.5)
    assert [shaped.shaping(n) for n in (2, 3, 4, 9)] == [0, -0.25, -0.5, -0.5]
