"""What the config says about advantages and long answers, and what it must not say."""

from __future__ import annotations

import pytest

from rltrain.algo.advantages import GroupRewards
from rltrain.algo.shaping import Overlong
from rltrain.batch.resolve import advantage_of, overlong_of, replacements_of
from rltrain.config import RunConfig
from rltrain.config.compose import load_config
from rltrain.errors import UserError


def config(*overrides: str) -> RunConfig:
    return load_config(["experiment=segments_cpu", "rollout.max_new_tokens=32", *overrides])


def test_everything_is_off_by_default() -> None:
    plain = config()
    assert overlong_of(plain) == Overlong(horizon=32)
    assert overlong_of(plain).shaping(1_000_000) == 0
    assert replacements_of(plain) == 0


def test_the_horizon_is_the_budget_of_an_episode_unless_given() -> None:
    assert overlong_of(config("algo.overlong.cache=8", "rollout.max_turns=2")).horizon == 64
    given = overlong_of(config("algo.overlong.cache=8", "algo.overlong.horizon=16"))
    assert [given.shaping(n) for n in (8, 12, 16, 32)] == [0, -0.5, -1, -1]
    with pytest.raises(UserError, match=r"algo\.overlong\.cache \(40\) must not be larger"):
        overlong_of(config("algo.overlong.cache=40"))


def test_arguments_of_the_advantage_are_checked_before_anything_is_started() -> None:
    one = GroupRewards(rewards=(1.0, 0.0), lengths=(1, 1))
    halved = advantage_of(config("algo.advantage=gpg", "+algo.advantage_args.f_norm=2.0"))
    assert halved([one]) == [[0.25, -0.25]]
    with pytest.raises(UserError, match=r"algo\.advantage_args: grpo has no argument 'epsilon'"):
        advantage_of(config("algo.advantage=grpo", "+algo.advantage_args.epsilon=1"))


def test_gdpo_takes_a_weight_for_each_gate_of_the_run_and_for_no_other() -> None:
    stages = [stage.check for stage in config().rewards.stages]
    named = f"+algo.advantage_args.{stages[0]}=2.0"
    two = GroupRewards(rewards=(1.0, 0.0), lengths=(1, 1), components={stages[0]: (1.0, 0.0)})
    assert advantage_of(config("algo.advantage=gdpo", named))([two])[0][0] > 0
    for unknown in ("no_such_gate", "overlong"):
        with pytest.raises(UserError, match=f"gdpo has no argument {unknown!r}"):
            advantage_of(config("algo.advantage=gdpo", f"+algo.advantage_args.{unknown}=1"))
    penalised = ("algo.overlong.cache=4", "+algo.advantage_args.overlong=0.5")
    weighed = advantage_of(config("algo.advantage=gdpo", *penalised))
    both = GroupRewards(
        rewards=(1.0, 0.0), lengths=(1, 1), components={"right": (1, 0), "overlong": (-1, 0)}
    )
    assert weighed([both])[0][0] > 0  # 1 against 1/2: being right weighs more than being short


def test_dynamic_sampling_is_bounded_by_a_multiple_of_the_step() -> None:
    on = ("rollout.dynamic_sampling=true", "rollout.groups_per_step=4")
    assert replacements_of(config(*on)) == 12
    assert replacements_of(config(*on, "rollout.max_resampled=0.1")) == 1
    with pytest.raises(UserError, match=r"rollout\.group_size must be at least 2"):
        replacements_of(config(*on, "rollout.group_size=1", "algo.advantage=reinforce"))
    assert replacements_of(config(*on, "rollout.group_size=1", "algo.advantage=remax")) == 12
