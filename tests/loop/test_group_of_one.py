"""A task's only answer can be learned from where the baseline is not its siblings'."""

from __future__ import annotations

from pathlib import Path

import pytest

from rltrain import build
from rltrain.algo.advantages import ADVANTAGES, ALONE, reinforce
from rltrain.batch.resolve import fewest_of
from rltrain.batch.samples import batch_samples
from rltrain.errors import UserError
from rltrain.rollout.ledger import Ledger
from rltrain.rollout.settle import settle_all
from tests.loop.harness import config_of, run_loop
from tests.loop.test_every_choice import PPO, check
from tests.makers import make_group


def test_ppo_trains_on_groups_of_one() -> None:
    result = run_loop(config_of(PPO, rollout={"group_size": 1, "groups_per_step": 8}))
    check(result)
    counts = [len(group.members) for groups in result.groups for group in groups]
    assert counts == [1] * 24
    assert all(stats.metrics["value/loss"] > 0 for stats in result.stats)


@pytest.mark.parametrize("name", list(ADVANTAGES))
def test_an_advantage_is_allowed_alone_exactly_if_it_then_says_something(name: str) -> None:
    config = config_of({"advantage": name}, rollout={"group_size": 1})
    if name in ALONE:
        assert fewest_of(config) == 1
        build.check_names(config)
    else:
        with pytest.raises(UserError, match=r"group_size \(1\) must be at least 2: algo\.adv"):
            build.check_names(config)


def test_a_lone_survivor_is_consumed_only_where_one_is_enough(tmp_path: Path) -> None:
    group = make_group([1, 0, 0], lost=[1], dropped=[2])
    assert batch_samples([group], reinforce) == []
    (sample,) = batch_samples([group], reinforce, fewest=1)
    assert sample.advantages == tuple(float(m) for m in sample.loss_mask)
    for fewest, consumed in ((2, 0), (1, 1)):
        ledger = Ledger(tmp_path / f"{fewest}.sqlite")
        ledger.lease(0, "t0", 3, 0, "w")
        ledger.receive(group)
        settle_all(ledger, [group], 1, fewest=fewest)
        assert ledger.totals()["consumed"] == consumed
        ledger.close()
