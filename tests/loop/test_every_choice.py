"""Every algorithm that the config can name, through the real loop: three steps, everything finite,
the policy moved. A new entry of any dict, or file of configs/algo, is covered without a line here.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from rltrain.algo.advantages import ADVANTAGES
from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.algo.corrections import CORRECTIONS
from rltrain.algo.kl import KL
from rltrain.algo.losses import LOSSES
from rltrain.algo.proximal import PROXIMAL
from rltrain.config.algo import KLConfig
from rltrain.config.compose import config_dir, load_config
from tests.loop.harness import Result, config_of, run_loop

PLACEMENTS = KLConfig.model_fields["placement"].annotation.__args__
PRESETS = sorted(  # those with a `method` learn from stored answers and have no loop
    path.stem
    for path in (config_dir() / "algo").glob("*.yaml")
    if "method" not in OmegaConf.load(path)
)
PPO: dict[str, Any] = {"advantage": "reinforce", "epochs": 2, "critic": {"lr": 1e-2, "epochs": 2}}

CHOICES: dict[str, dict[str, Any]] = {
    **{f"advantage {name}": {"advantage": name} for name in ADVANTAGES},
    **{f"loss {name}": {"loss": name, "epochs": 2} for name in LOSSES},
    **{f"correction {name}": {"correction": name} for name in CORRECTIONS},
    **{f"aggregation {name}": {"aggregation": name} for name in AGGREGATIONS},
    **{f"proximal {name}": {"proximal": name, "epochs": 2} for name in PROXIMAL},
    **{
        f"kl {name} in the {place}": {"kl": {"coef": 0.1, "estimator": name, "placement": place}}
        for name, place in itertools.product(KL, PLACEMENTS)
    },
    "entropy bonus": {"entropy_coef": 0.01},
    "top entropy": {"top_entropy": 0.3},
    "overlong": {"overlong": {"cache": 3}},
    **{
        f"critic and kl in the {place}": {**PPO, "kl": {"coef": 0.1, "placement": place}}
        for place in PLACEMENTS
    },
}


def check(result: Result, steps: int = 3) -> None:
    assert len(result.stats) == steps
    for stats in result.stats:
        numbers = {"loss": stats.loss, "grad_norm": stats.grad_norm, **stats.metrics}
        assert {k: v for k, v in numbers.items() if not math.isfinite(v)} == {}
        assert stats.tokens > 0
    assert all(torch.isfinite(p).all() for p in result.model.parameters())
    assert result.moved > 1e-4
    served, trained = result.engine.model.state_dict(), result.model.state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in served.items())
    assert (result.engine.version, result.saved) == (steps, [steps])


@pytest.mark.parametrize("algo", list(CHOICES.values()), ids=list(CHOICES))
def test_three_steps_are_finite_and_move_the_policy(algo: dict[str, Any]) -> None:
    check(run_loop(config_of(algo)))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_takes_three_steps(preset: str) -> None:
    algo = load_config(["experiment=segments_cpu", f"algo={preset}"]).algo
    tree = algo.model_dump(mode="json")
    if algo.critic is not None:
        tree["critic"]["warmup_steps"] = 1
    check(run_loop(config_of(tree)))


def test_there_is_a_preset_with_and_one_without_a_critic() -> None:
    assert {"grpo", "ppo"} <= set(PRESETS)


@pytest.mark.parametrize("algo", [{}, PPO], ids=["group baseline", "critic"])
@pytest.mark.parametrize("packing", ["padded", "shared_prefix"])
def test_episodes_of_two_turns(algo: dict[str, Any], packing: str) -> None:
    result = run_loop(
        config_of(
            algo,
            environment={"args": {"turns": 2}},
            rollout={"max_turns": 2, "max_new_tokens": 6},
            train={"packing": packing},
        )
    )
    check(result)
    members = [m for groups in result.groups for g in groups for m in g.members]
    assert {len(m.judged.episode.turns) for m in members} == {1, 2}


@pytest.mark.parametrize("algo", [{}, PPO], ids=["group baseline", "critic"])
def test_the_reward_is_learned(algo: dict[str, Any]) -> None:
    # The mean of random digits over 9 is 0.5, and empty answers earn 0.
    changes: dict[str, Any] = {"rollout": {"groups_per_step": 4}, "train": {"lr": 2e-2}}
    rewards = run_loop(config_of(algo, max_steps=10, **changes)).mean_rewards()
    assert max(rewards[:2]) < 0.55
    assert min(rewards[-2:]) > 0.8
