"""Which pairs a group of rollouts gives, worked by hand, and what never becomes one."""

from __future__ import annotations

from math import comb
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rltrain.config.offline import SelectConfig
from rltrain.offline.select import Selection, demonstrations, preferences
from rltrain.types import Group
from tests.offline.offline_makers import group, member, stored


def pairs(folder: Path, *groups: Group, seed: int = 0, **select: Any) -> Selection:
    return preferences(stored(groups, folder), SelectConfig(**select), seed, "r")


def texts(found: Selection) -> list[tuple[str, str]]:
    return [(r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in found.rows]


def test_the_higher_reward_is_chosen_and_the_row_says_why(tmp_path: Path) -> None:
    found = pairs(
        tmp_path, group([member("bad", 0.0, stopped="schema"), member("good", 0.75, sample=1)])
    )
    (row,) = found.rows
    assert row["chosen"] == [{"role": "assistant", "content": "good"}]
    assert row["rejected"] == [{"role": "assistant", "content": "bad"}]
    assert row["prompt"] == [{"role": "user", "content": "customers number 0 please"}]
    assert row["margin"] == 0.75
    assert row["reason"] == "reward 0.75 against 0, stopped at none against schema"
    assert row["group"] == {"run": "r", "step": 1, "lease": 0, "task_id": "t0"}
    assert row["chosen_rollout"]["sample"] == 1 and row["rejected_rollout"]["version"] == 0
    assert (row["chosen_canonical"], row["rejected_canonical"]) == ("GOOD", "BAD")
    assert (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) == ([5, 6], [7, 8], [7, 8])


def test_of_equal_rewards_the_one_that_passed_more_gates_is_chosen(tmp_path: Path) -> None:
    members = [
        member("a", 0.0, stopped="format"), member("b", 0.0, stopped="graded"),
        member("c", 0.0, stopped="graded"),
    ]  # fmt: skip
    found = pairs(tmp_path, group(members))
    assert sorted(texts(found)) == [("b", "a"), ("c", "a")]
    assert found.dropped == {"equally good": 1}
    assert pairs(tmp_path, group(members), min_margin=0.1).rows == []


def test_a_floor_that_pays_an_early_failure_more_makes_no_pair(tmp_path: Path) -> None:
    members = [member("a", 0.2, stopped="format"), member("b", 0.1, stopped="graded")]
    assert pairs(tmp_path, group(members)).dropped == {"reward against gates": 1}


def test_margins_below_the_least_are_left_out(tmp_path: Path) -> None:
    members = [member("a", 1.0), member("b", 0.5), member("c", 0.25)]
    # differences: a-b 0.5, a-c 0.75, b-c 0.25
    found = pairs(tmp_path, group(members), min_margin=0.5)
    assert sorted(texts(found)) == [("a", "b"), ("a", "c")]
    assert found.dropped == {"below min_margin": 1}


def test_lost_and_dropped_siblings_are_on_neither_side(tmp_path: Path) -> None:
    members = [
        member("hack", 1.0, action="drop"), member("fine", 0.5),
        member("hack 2", 0.0, action="drop"),
    ]  # fmt: skip
    found = pairs(tmp_path, group(members, lost=3))
    assert found.rows == [] and found.rollouts == 3
    assert found.dropped_rollouts == {"dropped by a detector": 2}


def test_a_flagged_answer_is_rejected_but_never_chosen_unless_asked_for(tmp_path: Path) -> None:
    flagged = [member("hack", 1.0, action="keep"), member("fine", 0.5), member("bad", 0.0)]
    assert texts(pairs(tmp_path, group(flagged))) == [("fine", "bad")]
    low = [member("hack", 0.0, action="zero"), member("fine", 0.5)]
    assert texts(pairs(tmp_path, group(low))) == [("fine", "hack")]
    assert ("hack", "fine") in texts(pairs(tmp_path, group(flagged), flagged=True))


def test_pairs_are_drawn_by_the_seed_and_by_nothing_else(tmp_path: Path) -> None:
    members = [member("right", 1.0), *(member(f"wrong {i}", 0.0) for i in range(7))]
    drawn = {
        seed: pairs(tmp_path, group(members), max_per_group=2, seed=seed) for seed in range(8)
    }
    again = pairs(tmp_path, group(members), max_per_group=2, seed=3)
    assert drawn[3].rows == again.rows
    assert len({texts(found)[0] for found in drawn.values()}) > 1
    assert again.dropped == {"equally good": 21, "over max_per_group": 5}  # 7 * 6 / 2; 7 - 2


def test_a_mistake_that_is_made_often_is_drawn_before_rare_nonsense(tmp_path: Path) -> None:
    often = [member("often", 0.3, sample=i) for i in range(1, 7)]
    members = [member("right", 1.0), *often, member("nonsense", 0.0, sample=7, stopped="format")]
    rejected = [
        texts(pairs(tmp_path, group(members), max_per_group=1, min_margin=0.5, seed=seed))[0][1]
        for seed in range(40)
    ]
    # right against often 6 times, against nonsense once: nonsense is drawn with chance 1/7
    assert 1 <= rejected.count("nonsense") <= 14


def test_the_same_pair_is_taken_once_over_all_groups(tmp_path: Path) -> None:
    twice = [member("a", 1.0), member("a", 1.0), member("b", 0.0)]
    found = pairs(tmp_path, group(twice), group(twice, lease=1), group(twice[1:], lease=2))
    assert texts(found) == [("a", "b")]
    # group 1: a-a same text, two a-b of which one is new; the others bring nothing new
    assert found.dropped == {"same text": 2, "repeated": 4}
    assert (found.groups, found.groups_used) == (3, 1)


def test_the_same_answers_to_another_prompt_are_another_pair(tmp_path: Path) -> None:
    groups = [group([member("a", 1.0, number=n), member("b", 0.0, number=n)], n) for n in (0, 1)]
    assert len(pairs(tmp_path, *groups).rows) == 2


def test_newer_rollouts_and_those_of_several_turns_are_left_out(tmp_path: Path) -> None:
    members = [
        member("a", 1.0), member("b", 0.0, version=4), member("c", 0.0, turns=2),
        member("d", 0.0, version=3),
    ]  # fmt: skip
    found = pairs(tmp_path, group(members), max_version=3)
    assert texts(found) == [("a", "d")]
    assert found.dropped_rollouts == {"newer than max_version": 1, "several turns": 1}


def test_a_store_without_prompts_gives_the_request_as_the_prompt(tmp_path: Path) -> None:
    rows = stored([group([member("a", 1.0), member("b", 0.0)])], tmp_path)
    for row in rows:
        for column in ("prompt", "completion", "prompt_ids", "completion_ids"):
            del row[column]
    (row,) = preferences(rows, SelectConfig(), 0).rows
    assert row["prompt"] == [{"role": "user", "content": "customers number 0 please"}]
    assert row["chosen"][0]["content"] == "a" and "chosen_ids" not in row


def test_answers_to_imitate_are_good_unflagged_and_different(tmp_path: Path) -> None:
    members = [
        member("a", 1.0), member("a", 1.0), member("b", 1.0), member("c", 0.9),
        member("d", 1.0, action="keep"),
    ]  # fmt: skip
    rows = stored([group(members)], tmp_path)
    found = demonstrations(rows, SelectConfig(), 0, "r")
    assert {row["completion"][0]["content"] for row in found.rows} == {"a", "b"}
    assert found.dropped == {"repeated": 1, "below min_reward": 1, "flagged": 1}
    assert found.rows[0]["completion_ids"] == [7, 8]
    best = demonstrations(rows, SelectConfig(min_reward=0.5, max_per_group=1), 0)
    assert best.rows[0]["completion_rollout"]["reward"] == 1.0
    assert best.dropped["over max_per_group"] == 2


MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", "e"]),
        st.sampled_from([0.0, 0.15, 0.3, 1.0]),
        st.sampled_from([None, "format", "schema", "graded"]),
        st.sampled_from([None, "keep", "zero", "drop"]),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("flagged", [False, True])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn=st.lists(MEMBERS, min_size=1, max_size=3), margin=st.sampled_from([0.0, 0.2, 0.8]))
def test_every_pair_is_accounted_for_and_keeps_the_rules(
    tmp_path: Path, drawn: list[Any], margin: float, flagged: bool
) -> None:
    groups = [
        group(
            [
                member(t, reward, stopped=stopped, action=action, number=n, sample=i)
                for i, (t, reward, stopped, action) in enumerate(members)
            ],
            n,
        )
        for n, members in enumerate(drawn)
    ]
    found = pairs(tmp_path, *groups, min_margin=margin, flagged=flagged, max_per_group=3)
    usable = [sum(action != "drop" for *_, action in members) for members in drawn]
    assert len(found.rows) + found.dropped.total() == sum(comb(count, 2) for count in usable)
    for row in found.rows:
        chosen, rejected = row["chosen_rollout"], row["rejected_rollout"]
        assert row["margin"] == chosen["reward"] - rejected["reward"] >= margin
        assert row["chosen"] != row["rejected"]
        assert flagged or not chosen["flags"]
