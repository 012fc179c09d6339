"""Groups become samples: who has a vote, and which tokens are the policy's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from rltrain.algo.advantages import ADVANTAGES, mean_centred
from rltrain.algo.shaping import Overlong
from rltrain.batch.samples import (
    batch_samples,
    components,
    episode_tokens,
    group_rewards,
    overlong_metrics,
)
from rltrain.types import Flag, Group, Sample, Verdict
from tests.makers import make_episode, make_group, make_member, make_turn


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
    greedy = make_member(0.5, episode=make_episode())
    masked = replace(make_group([1, 1, 0, 0], **{how: [1]}), greedy=greedy)
    smaller = replace(make_group([1, 0, 0]), greedy=greedy)
    other = replace(make_group([0, 1], lease=1), greedy=greedy)
    advantage = ADVANTAGES[name]
    found = advantages_of(batch_samples([masked, other], advantage))
    assert found == advantages_of(batch_samples([smaller, other], advantage))
    in_groups = advantage([group_rewards(smaller), group_rewards(other)])
    assert found == [value for row in in_groups for value in row]


def test_a_masked_success_leaves_the_baseline_of_the_others_alone() -> None:
    masked = make_group([1, 1, 0, 0], lost=[1])  # the mean of 1, 0, 0 is 1/3, not 1/2
    found = advantages_of(batch_samples([masked], mean_centred))
    assert found == pytest.approx([2 / 3, -1 / 3, -1 / 3])


def test_a_group_with_fewer_than_two_living_siblings_is_not_trained_on() -> None:
    assert batch_samples([make_group([1, 0], lost=[0])], mean_centred) == []
    assert batch_samples([make_group([1, 0, 1], lost=[0], dropped=[1])], mean_centred) == []


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


def with_lengths(group: Group, lengths: Sequence[int], cut: Sequence[int] = ()) -> Group:
    """The same siblings with answers of these lengths; those in `cut` ended for want of budget."""
    members = []
    for i, (member, length) in enumerate(zip(group.members, lengths, strict=True)):
        turn = make_turn(completion_ids=[9] * length)
        episode = replace(
            member.judged.episode,
            turns=(turn,),
            ended="truncated" if i in cut else "answered",
        )
        members.append(replace(member, judged=replace(member.judged, episode=episode)))
    return replace(group, members=tuple(members))


SOFT = Overlong(horizon=8, cache=4)


def test_long_answers_lose_some_of_their_reward_and_the_group_s_own_is_left_alone() -> None:
    group = with_lengths(make_group([1, 1, 0]), [4, 6, 8])
    # Nothing up to 4 tokens, a quarter for each one more: 1, 1 - 1/2, 0 - 1.
    assert group_rewards(group, SOFT).rewards == (1.0, 0.5, -1.0)
    assert group_rewards(group).rewards == (1.0, 1.0, 0.0)
    found = advantages_of(batch_samples([group], mean_centred, SOFT))
    assert found == pytest.approx([5 / 6, 1 / 3, -7 / 6])
    assert [member.reward for member in group.members] == [1, 1, 0]


def test_the_greedy_answer_is_shaped_as_the_siblings_are() -> None:
    group = with_lengths(make_group([1, 1, 0.5]), [4, 4, 6])
    group = replace(group, members=group.members[:2], greedy=group.members[2])
    assert group_rewards(group, SOFT).greedy == 0.0
    assert advantages_of(batch_samples([group], ADVANTAGES["remax"], SOFT)) == [1.0, 1.0]


def test_a_filtered_answer_is_not_trained_on_and_has_no_vote() -> None:
    group = with_lengths(make_group([1, 1, 0, 0]), [2, 9, 3, 4], cut=[1])
    samples = batch_samples([group], mean_centred, Overlong(filter=True))
    assert [sum(sample.loss_mask) for sample in samples] == [2, 3, 4]
    assert advantages_of(samples) == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    assert len(batch_samples([group], mean_centred)) == 4
    alone = with_lengths(make_group([1, 0]), [2, 3], cut=[0])
    assert batch_samples([alone], mean_centred, Overlong(filter=True)) == []


def test_what_shaping_and_filter_did_is_measured_and_absent_where_they_are_off() -> None:
    group = with_lengths(make_group([1, 1, 0, 1], dropped=[3]), [5, 8, 4, 8], cut=[1])
    both = replace(SOFT, filter=True)
    # Of three live siblings one is left out; the others have 5 and 4 tokens: -1/4 and 0.
    assert overlong_metrics([group], both) == {
        "overlong/filtered": 1.0,
        "overlong/penalty": -0.125,
    }
    assert overlong_metrics([group], SOFT)["overlong/penalty"] == pytest.approx(-1.25 / 3)
    assert overlong_metrics([group], Overlong()) == {}


def verdict(gate: str, score: float, passed: bool = True) -> Verdict:
    return Verdict(gate=gate, passed=passed, score=score)


def judged_by(group: Group, chains: Sequence[Sequence[Verdict]]) -> Group:
    members = [
        replace(member, judged=replace(member.judged, verdicts=tuple(chain)))
        for member, chain in zip(group.members, chains, strict=True)
    ]
    return replace(group, members=tuple(members))


def test_the_components_are_the_gates_with_0_for_those_that_never_got_there() -> None:
    chains = [
        [verdict("format", 1.0), verdict("schema", 1.0), verdict("execution", 0.75)],
        [verdict("format", 1.0), verdict("schema", 0.5, passed=False)],
        [verdict("format", 0.0, passed=False)],
    ]
    group = judged_by(make_group([0.75, 0, 0]), chains)
    assert components(group.members) == {
        "format": (1.0, 1.0, 0.0),
        "schema": (1.0, 0.0, 0.0),
        "execution": (0.75, 0.0, 0.0),
    }
    # 4 tokens are free here, and 2 is the length of every answer.
    assert group_rewards(group, SOFT).components["overlong"] == (0.0, 0.0, 0.0)
    assert "overlong" not in group_rewards(group).components


def test_a_hack_that_a_detector_zeroed_is_not_paid_gate_by_gate() -> None:
    chain = [verdict("format", 1.0), verdict("execution", 1.0)]
    group = judged_by(make_group([1, 1]), [chain, chain])
    zero = Flag(detector="opt_out", evidence="match all", action="zero")
    honest, hack = group.members
    hack = replace(hack, flags=(zero,), reward=0.0)
    assert components([honest, hack]) == {"format": (1.0, 0.0), "execution": (1.0, 0.0)}


def test_without_gates_the_reward_is_the_only_component_so_gdpo_is_still_defined() -> None:
    group = make_group([1, 0])
    assert components(group.members) == {"reward": (1.0, 0.0)}
    # One component standardised to (1, -1)/sqrt(2), whose std is 1 already.
    found = advantages_of(batch_samples([group], ADVANTAGES["gdpo"]))
    assert found == pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-5)
