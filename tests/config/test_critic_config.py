"""`algo=ppo` on the command line, and what is said about mistakes in its section."""

from __future__ import annotations

import pytest

from rltrain import build
from rltrain.config.compose import load_config
from rltrain.config.critic import CriticConfig
from rltrain.errors import UserError

PPO = ("experiment=segments_cpu", "algo=ppo")


def test_ppo_brings_a_critic_and_the_bare_reward() -> None:
    config = load_config([*PPO, "rollout.group_size=1"])
    assert isinstance(config.algo.critic, CriticConfig)
    assert (config.algo.advantage, config.algo.critic.gamma) == ("reinforce", 1.0)
    build.check_names(config)
    assert load_config(PPO[:1]).algo.critic is None


def test_keys_of_the_critic_can_be_overridden() -> None:
    critic = load_config([*PPO, "algo.critic.lr=2e-4", "algo.critic.warmup_steps=0"]).algo.critic
    assert critic is not None
    assert (critic.lr, critic.warmup_steps) == (2e-4, 0)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("algo.critic.lrr=1", ["'algo.critic.lrr' does not exist", "'algo.critic.lr'?"]),
        ("algo.critic.lam=2", ["algo.critic.lam", "less than or equal to 1"]),
        ("algo.critic.clip=-1", ["algo.critic.clip", "greater than or equal to 0"]),
        ("max_steps=5", ["warmup_steps (5)", "max_steps (5)"]),
    ],
)
def test_a_mistake_names_the_key(override: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config([*PPO, override])
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
