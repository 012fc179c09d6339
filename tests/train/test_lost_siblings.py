"""A sibling that the system lost, or a detector dropped, has no part in what is learned: gradient
and loss are those of the group that never had it, whatever was lost where."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rltrain.algo.advantages import ADVANTAGES, bind
from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.batch.packing import make_batch
from rltrain.batch.samples import batch_samples
from rltrain.config.algo import AlgoConfig, TrainConfig
from rltrain.rollout.ledger import Ledger
from rltrain.rollout.settle import settle_all
from rltrain.train.learner import PolicyLearner
from rltrain.train.objective import Objective
from rltrain.types import Fault, Group
from tests.makers import DROP, make_episode, make_member, make_task, make_turn, tiny_policy

SIBLINGS, FEWEST = 4, 2
FATES = ("live", "fault:engine", "fault:judge", "fault:environment", "detector:opt_out")
# Those whose baseline is the group, or the whole step: a wrong vote would show in all of them.
BASELINES = ("grpo", "rloo", "opo", "lite_ppo")


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[list[str], list[float], list[list[int]]]]:
    """Three groups: fate, reward and tokens of each sibling."""
    fates = st.lists(st.sampled_from(FATES), min_size=SIBLINGS, max_size=SIBLINGS)
    rewards = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=SIBLINGS, max_size=SIBLINGS)
    tokens = st.lists(
        st.lists(st.integers(1, 40), min_size=1, max_size=5), min_size=SIBLINGS, max_size=SIBLINGS
    )
    return [(draw(fates), draw(rewards), draw(tokens)) for _ in range(3)]


def group_of(
    lease: int, fates: list[str], rewards: list[float], tokens: list[list[int]]
) -> tuple[Group, Group]:
    """The group as it came back, and the same as if only those that live had been sampled."""
    members, faults = [], []
    for i, (fate, reward, ids) in enumerate(zip(fates, rewards, tokens, strict=True)):
        if fate.startswith("fault:"):
            faults.append(Fault(sample=i, kind=fate.removeprefix("fault:"), detail="gone"))
            continue
        logprobs = [-3.0 - 0.1 * k - 0.01 * i for k in range(len(ids))]
        episode = make_episode([make_turn(completion_ids=ids, logprobs=logprobs)], i)
        flags = () if fate == "live" else (DROP,)
        members.append(make_member(reward, flags=flags, episode=episode))
    group = Group(
        lease=lease, task=make_task(lease), members=tuple(members), faults=tuple(faults)
    )
    live = tuple(member for member in members if not member.dropped)
    return group, replace(group, members=live, faults=())


def gradients(groups: list[Group], advantage: str) -> tuple[float, list[Tensor]]:
    """Loss and gradients of one real step; without samples nothing moves."""
    samples = batch_samples(groups, bind(advantage, {}, ["executed"]), fewest=FEWEST)
    algo = AlgoConfig(correction_args={"cap": 2.0})
    learner = PolicyLearner(
        tiny_policy(), Objective.from_config(algo, 1.0), TrainConfig(max_grad_norm=1e9), 5
    )
    batch = make_batch(samples, AGGREGATIONS["token_mean"], horizon=8, shared_prefix=True)
    seen: list[list[Tensor]] = []
    learner.optimizer.register_step_pre_hook(
        lambda optimizer, args, kwargs: seen.append(
            [p.grad.clone() for p in learner.parameters if p.grad is not None]
        )
    )
    stats = learner.step(batch)
    return stats.loss, seen[0] if seen else []


@pytest.mark.parametrize("advantage", BASELINES)
@settings(max_examples=12, deadline=None)
@given(steps())
def test_the_gradient_is_that_of_the_groups_without_their_lost_siblings(
    advantage: str, drawn: list[tuple[list[str], list[float], list[list[int]]]]
) -> None:
    pairs = [group_of(n, *values) for n, values in enumerate(drawn)]
    assume(any(group != clean for group, clean in pairs))
    loss, got = gradients([group for group, _ in pairs], advantage)
    same_loss, wanted = gradients([clean for _, clean in pairs], advantage)
    assert loss == pytest.approx(same_loss, rel=1e-6, abs=1e-9)
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(steps())
def test_each_sibling_has_the_fate_that_it_met_and_none_has_two(
    drawn: list[tuple[list[str], list[float], list[list[int]]]],
) -> None:
    groups = [group_of(n, *values)[0] for n, values in enumerate(drawn)]
    expected: Counter[str] = Counter()
    for fates, _, _ in drawn:
        alone = fates.count("live") < FEWEST
        expected.update(
            {"live": "alone_in_group" if alone else "consumed"}.get(fate, fate) for fate in fates
        )
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        for group in groups:
            ledger.lease(group.lease, group.task.id, SIBLINGS, 0, "w")
            assert ledger.receive(group)
        settle_all(ledger, groups, 1)
        totals = ledger.totals()
        ledger.close()
    assert totals == {
        "issued": 3 * SIBLINGS,
        "consumed": expected.pop("consumed", 0),
        "dropped": dict(sorted(expected.items())),
        "in_flight": 0,
    }


def test_a_vote_of_the_lost_would_have_shown() -> None:
    fates, tokens = ["live", "live", "live", "fault:engine"], [[1], [2, 3], [4], [5]]
    lost, _ = group_of(0, fates, [1.0, 0.0, 0.0, 1.0], tokens)
    voting, _ = group_of(0, ["live"] * 4, [1.0, 0.0, 0.0, 1.0], tokens)
    _, without = gradients([lost], "mean_centred")
    _, with_it = gradients([voting], "mean_centred")
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in zip(without, with_it, strict=True))
    assert set(BASELINES) <= set(ADVANTAGES)
