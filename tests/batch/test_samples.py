"""Groups become samples: who has a vote, and which tokens are the policy's own."""

from __future__ import annotations

import pytest

from rltrain.algo.advantages import ADVANTAGES, mean_centred
from rltrain.batch.samples import batch_samples, episode_tokens, group_samples
from rltrain.types import Sample
from tests.makers import make_episode, make_group, make_turn


def advantages_of(samples: list[Sample]) -> list[float]:
    """The one advantage of each sample, which all its trained tokens carry."""
    found = []
    for sample in samples:
        values = {a for a, m in zip(sample.advantages, sample.loss_mask, strict=True) if m}
        assert len(values) == 1
        others = {a for a, m in zip(sample.advantages, sample.loss_mask, strict=True) if not m}
        assert others == {0.0}
        found.append(values.pop())
    return found


@pytest.mark.parametrize("name", list(ADVANTAGES))
@pytest.mark.parametrize("how", ["dropped", "lost"])
def test_a_sibling_that_is_gone_has_no_vote_in_the_baseline(name: str, how: str) -> None:
    masked = make_group([1, 1, 0, 0], **{how: [1]})
    smaller = make_group([1, 0, 0])
    advantage = ADVANTAGES[name]
    assert advantages_of(batch_samples([masked], advantage)) == advantages_of(
        batch_samples([smaller], advantage)
    )
    assert advantages_of(batch_samples([masked], advantage)) == advantage([1, 0, 0])


def test_a_group_with_fewer_than_two_living_siblings_is_not_trained_on() -> None:
    assert group_samples(make_group([1, 0], lost=[0]), mean_centred, 0) == []
    assert group_samples(make_group([1, 0, 1], lost=[0], dropped=[1]), mean_centred, 0) == []


def test_families_follow_groups_even_where_one_is_left_out() -> None:
    groups = [make_group([1, 0]), make_group([1, 0], lost=[0, 1]), make_group([0, 1])]
    assert [s.family for s in batch_samples(groups, mean_centred)] == [0, 0, 2, 2]


def test_only_sampled_tokens_of_a_two_turn_episode_are_in_the_mask() -> None:
    first = make_turn((5, 6), (7, 8), (-0.1, -0.2), version=3)
    second = make_turn((5, 6, 7, 8, 20, 21), (9,), (-0.3,), version=4)
    episode = make_episode([first, second])
    ids, mask, logprobs = episode_tokens(episode)
    assert ids == [5, 6, 7, 8, 20, 21, 9]
    assert mask == [False, False, True, True, False, False, True]
    assert logprobs == [0, 0, -0.1, -0.2, 0, 0, -0.3]
    assert episode.version == 3


def test_a_turn_that_rewrote_the_history_is_refused() -> None:
    turns = [make_turn((5, 6), (7,)), make_turn((5, 99, 7, 8), (9,))]
    with pytest.raises(ValueError, match="turn 1 of task t0 does not continue"):
        episode_tokens(make_episode(turns))
