"""Restarts as numbers: how long a process waits for its next start, and when there is none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rltrain.config.supervise import SuperviseConfig
from rltrain.launch.budget import Budget
from rltrain.launch.heartbeat import Watch

CONFIG = SuperviseConfig(max_restarts=3, window_s=100, backoff_s=1, backoff_max_s=10)


def test_the_wait_doubles_while_a_process_dies_young_and_then_starts_over() -> None:
    budget = Budget(CONFIG.model_copy(update={"max_restarts": 10}))
    waits = [budget.died(now, lived_s=1.0) for now in range(6)]
    assert waits == [1, 2, 4, 8, 10, 10]
    assert budget.died(20, lived_s=11.0) == 1


def test_restarts_are_counted_within_a_window_and_one_too_many_ends_it() -> None:
    budget = Budget(CONFIG)
    assert [budget.died(now, 50.0) for now in (0, 40, 80)] == [1, 1, 1] and budget.used == 3
    assert budget.died(101, 50.0) == 1, "the first is forgotten"
    assert budget.died(102, 50.0) is None
    assert "supervise.max_restarts=3 within 100 s" in budget.spent


def test_without_restarts_the_first_death_is_the_last() -> None:
    assert Budget(CONFIG.model_copy(update={"max_restarts": 0})).died(0, 5.0) is None


def test_the_same_words_three_times_in_a_row_are_enough() -> None:
    budget = Budget(CONFIG.model_copy(update={"max_restarts": 100}))
    ends = ["a", "a", "b", "a", "", "a", "a", "a"]
    waits = [budget.died(now, 50.0, words) for now, words in enumerate(ends)]
    assert waits == [1] * 7 + [None] and "3 times in a row" in budget.spent
    killed = Budget(CONFIG.model_copy(update={"max_restarts": 100}))
    assert all(killed.died(now, 50.0) for now in range(20)), "a kill has no words"


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), max_size=40))
def test_no_window_ever_holds_more_restarts_than_allowed(deaths: list[tuple[float, float]]) -> None:
    budget, granted, now = Budget(CONFIG), [], 0.0
    for pause, lived in deaths:
        now += pause
        if budget.died(now, lived) is not None:
            granted.append(now)
    for start in granted:
        assert sum(start <= each < start + CONFIG.window_s for each in granted) <= 3


def test_silence_ends_with_any_change_and_a_pause_of_the_watcher_is_nobodys_fault() -> None:
    watch = Watch("a", 0.0)
    assert [watch.look("a", now) for now in (0.5, 1.0, 1.5)] == [0.5, 1.0, 1.5]
    assert watch.look("b", 2.0) == 0.0 and watch.beats == 1
    assert watch.look("b", 1000.0) == Watch.MOST_S
