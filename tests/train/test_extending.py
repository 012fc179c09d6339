"""The loss that the README shows, taken from the page and trained with."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.algo.losses import LOSSES
from rltrain.batch.packing import make_batch
from rltrain.bench.algorithms import formula, paper
from rltrain.config.algo import AlgoConfig, TrainConfig
from rltrain.errors import UserError
from rltrain.train.learner import PolicyLearner
from rltrain.train.objective import Objective
from tests.algo.scored_tokens import scored_tokens
from tests.makers import random_families, tiny_policy

PAGE = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Your own") :]


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture(name="example")
def _example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's file, importable under the name that the page gives it."""
    module = ModuleType("my_package.quadratic")
    exec(compile(block("python"), "README.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "my_package", ModuleType("my_package"))
    monkeypatch.setitem(sys.modules, "my_package.quadratic", module)
    return module


def step(algo: AlgoConfig) -> float:
    learner = PolicyLearner(
        tiny_policy(), Objective.from_config(algo, 1.0), TrainConfig(lr=1e-2), max_steps=2
    )
    batch = make_batch(random_families(), AGGREGATIONS["token_mean"], horizon=11, limit=40)
    learner.step(batch)
    return learner.step(batch).loss


def test_the_example_is_fifteen_lines_and_does_what_its_formula_says(example: ModuleType) -> None:
    assert len(block("python").splitlines()) <= 15
    # r = 2, A = 3: -6 + 0.5 (ln 2)^2 / 2 and, for the gradient, -6 + 0.5 ln 2.
    scored = scored_tokens([2.0], [3.0])
    out = example.loss(scored, strength=0.5)
    out.loss.sum().backward()
    assert out.loss.item() == pytest.approx(-6 + 0.5 * 0.6931471805599453**2 / 2)
    assert scored.new.grad is not None
    assert scored.new.grad.item() == pytest.approx(-6 + 0.5 * 0.6931471805599453)
    assert formula(example.loss) == "-r A + strength (log r)^2 / 2, r = pi / pi_old"
    assert paper(example.loss) == "none, an example"


def test_the_example_trains_by_import_path_as_the_page_configures_it(example: ModuleType) -> None:
    algo = AlgoConfig(**yaml.safe_load(block("yaml"))["algo"], epochs=2)
    assert algo.loss == f"{example.__name__}:loss"
    assert algo.loss_args == {"strength": 0.5}
    assert step(algo) != pytest.approx(step(algo.model_copy(update={"loss_args": {}})), rel=1e-6)


def test_the_example_trains_under_a_name_of_its_own(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, "quadratic", example.loss)
    by_name = AlgoConfig(loss="quadratic", loss_args={"strength": 0.5})
    by_path = AlgoConfig(loss="my_package.quadratic:loss", loss_args={"strength": 0.5})
    assert step(by_name) == step(by_path)


def test_a_loss_that_is_nowhere_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"algo.loss: my_package.gone:loss cannot be loaded"):
        Objective.from_config(AlgoConfig(loss="my_package.gone:loss"), 1.0)
    with pytest.raises(UserError, match=r"'ppo' is not one of ppo_clip, .*:function"):
        Objective.from_config(AlgoConfig(loss="ppo"), 1.0)
