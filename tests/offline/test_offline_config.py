"""What an offline method's config may say, and one sentence for what it may not."""

from __future__ import annotations

import pytest

from rltrain.config import RunConfig
from rltrain.config.compose import load_config
from rltrain.errors import UserError

BASE = ("experiment=segments_cpu",)


@pytest.mark.parametrize("method", ["sft", "dpo", "reward_model"])
def test_each_method_is_a_choice_of_algo_and_needs_data(method: str) -> None:
    config = load_config([*BASE, f"algo={method}", "algo.data=pairs.jsonl"])
    assert config.algo.method == method and config.algo.offline
    with pytest.raises(UserError, match=f"algo.method={method} needs algo.data"):
        load_config([*BASE, f"algo={method}"])


def test_an_online_run_stays_what_it_was() -> None:
    config = load_config(list(BASE))
    assert config.algo.method == "online" and not config.algo.offline
    assert config.measures_judge, "the flagship's witness"
    offline = load_config([*BASE, "algo=dpo", "algo.data=x", "rewards=judged"])
    assert not offline.measures_judge and not offline.uses_judge, "there is nothing to judge"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["algo.beta=0.2"], "algo.beta is not read by algo.method=online"),
        (["algo.data=x"], "algo.data is not read by algo.method=online"),
        (["algo=sft", "algo.data=x", "algo.beta=0.2"], "algo.beta is not read by algo.method=sft"),
        (["algo=reward_model", "algo.data=x", "algo.loss_type=ipo"], "algo.loss_type is not read"),
        (["algo=dpo", "algo.data=x", "algo.loss=gspo"], "algo.loss is not read by algo.method=dpo"),
        (["algo=dpo", "algo.data=x", "algo.epochs=2"], "algo.epochs is not read"),
        (["algo.method=dpo", "algo.data=x"], "algo.advantage is not read by algo.method=dpo"),
        (["algo.method=ppo2"], "'online', 'sft', 'dpo' or 'reward_model'"),
        (["algo=dpo", "algo.data=x", "algo.select.max_per_group=0"], "greater than 0"),
    ],
)
def test_a_key_that_the_method_does_not_read_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config([*BASE, *overrides])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_offline_config_says_the_same_when_read_back() -> None:
    config = load_config(
        [*BASE, "algo=dpo", "algo.data=run:runs/a", "algo.loss_type=[sigmoid,sft]",
         "+algo.trl.loss_weights=[1,0.1]", "algo.select.max_version=5"]
    )  # fmt: skip
    assert config.algo.loss_type == ("sigmoid", "sft")
    assert config.algo.trl == {"loss_weights": [1, 0.1]}
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
