"""A learner that comes back from disk takes the same next steps, bit for bit, or says why not."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.batch.packing import Batch, make_batch
from rltrain.config.algo import AlgoConfig, KLConfig, LoraConfig, TrainConfig
from rltrain.config.critic import CriticConfig
from rltrain.config.precision import PrecisionConfig
from rltrain.errors import UserError
from rltrain.train.actor_critic import ActorCriticLearner
from rltrain.train.checkpoint import MARKER, STATE, save_checkpoint, take
from rltrain.train.learner import PolicyLearner
from rltrain.train.model import add_lora
from rltrain.train.objective import Objective
from rltrain.train.restore import load_weights, newest_whole, restore, tidy
from rltrain.train.state import restore_rng, rng_state
from rltrain.types import StepStats
from rltrain.warmup.tokenizer import train_tokenizer
from tests.makers import random_families, tiny_policy

RENDERER = SimpleNamespace(tokenizer=train_tokenizer(["tag = 'vip'"], 300, 64))
STEPS = 6
TRAIN = TrainConfig(lr=1e-2, decay="cosine", warmup_steps=2)
KL = AlgoConfig(kl=KLConfig(coef=0.3, estimator="k2"), entropy_coef=0.1)


def plain(precision: str = "fp32") -> PolicyLearner:
    chosen = PrecisionConfig.model_validate({"compute": precision})
    return PolicyLearner(tiny_policy(), Objective.from_config(KL, 1.0), TRAIN, STEPS, chosen)


def lora() -> PolicyLearner:
    torch.manual_seed(5)
    model = add_lora(tiny_policy(), LoraConfig(rank=2, dropout=0.3))
    return PolicyLearner(model, Objective.from_config(KL, 1.0), TRAIN, STEPS)


def critic() -> PolicyLearner:
    objective = Objective.from_config(AlgoConfig(advantage="reinforce", epochs=2), 1.0)
    return ActorCriticLearner(tiny_policy(), objective, TRAIN, STEPS, CriticConfig(warmup_steps=1))


LEARNERS: dict[str, Callable[[], PolicyLearner]] = {
    "fp32": plain, "bf16": lambda: plain("bf16"), "fp16": lambda: plain("fp16"), "lora": lora,
    "critic": critic,
}  # fmt: skip


def batch_of(seed: int) -> Batch:
    return make_batch(
        random_families(seed), AGGREGATIONS["token_mean"], horizon=11, shared_prefix=False,
        limit=40, compute_all=True,
    )  # fmt: skip


def steps(learner: PolicyLearner, first: int, last: int) -> list[StepStats]:
    return [learner.step(batch_of(step)) for step in range(first, last + 1)]


def same_weights(a: Any, b: Any) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("kind", LEARNERS)
def test_it_takes_the_same_steps_as_one_that_never_stopped(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = LEARNERS[kind]()
    torch.manual_seed(0)
    steps(whole, 1, 3)
    folder = save_checkpoint(tmp_path / "step-00003", whole, RENDERER, 3)
    expected = steps(whole, 4, STEPS)

    again = LEARNERS[kind]()
    torch.manual_seed(99)
    random.seed(99)
    restore(folder, again)
    found = steps(again, 4, STEPS)
    assert again.version == STEPS
    assert same_weights(again.model, whole.model)
    assert [s.metrics for s in found] == [s.metrics for s in expected]
    assert [(s.loss, s.lr, s.grad_norm) for s in found] == [
        (s.loss, s.lr, s.grad_norm) for s in expected
    ]


def test_a_snapshot_is_of_its_moment_whenever_it_is_written(tmp_path: Path) -> None:
    learner = plain()
    steps(learner, 1, 2)
    taken = take(learner, RENDERER, 2, {"monitor": [1]})
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    steps(learner, 3, 4)
    again = plain()
    assert restore(taken.write(tmp_path / "step-00002"), again) == {"monitor": [1]}
    assert all(torch.equal(v, before[k]) for k, v in again.model.state_dict().items())
    assert again.version == 2
    assert not same_weights(again.model, learner.model)


def test_all_generators_draw_what_they_would_have_drawn(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(torch.rand(1))]

    random.gauss(0, 1)  # leaves a second one behind
    torch.save(rng_state(), tmp_path / "rng.pt")
    expected = draw()
    draw()
    restore_rng(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draw() == expected


def test_the_checkpoint_of_another_model_is_refused_by_its_first_tensor(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "step-00001", plain(), RENDERER, 1)
    other = tiny_policy()
    other.resize_token_embeddings(other.config.vocab_size + 8)
    objective = Objective.from_config(AlgoConfig(), 1.0)
    learner = PolicyLearner(other, objective, TRAIN, STEPS)
    size, width = tiny_policy().get_input_embeddings().weight.shape
    with pytest.raises(UserError) as raised:
        restore(folder, learner)
    assert f"model.embed_tokens.weight is [{size}, {width}] there" in str(raised.value)
    assert f"and [{size + 8}, {width}] here" in str(raised.value)
    assert learner.version == 0


@pytest.mark.parametrize(("saved", "here"), [(plain, lora), (lora, plain)])
def test_adapter_and_whole_model_are_not_mixed_up(
    saved: Callable[[], PolicyLearner], here: Callable[[], PolicyLearner], tmp_path: Path
) -> None:
    folder = save_checkpoint(tmp_path / "step-00001", saved(), RENDERER, 1)
    with pytest.raises(UserError, match=r"train\.lora as before"):
        load_weights(folder / "policy", here().model)


def test_an_adapter_of_another_rank_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "step-00001", lora(), RENDERER, 1)
    wider = add_lora(tiny_policy(), LoraConfig(rank=4))
    with pytest.raises(UserError, match=r"lora_A.*is \[2, \d+\] there and \[4, \d+\] here"):
        load_weights(folder / "policy", wider)


def test_weights_without_training_state_are_named_as_such(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "step-00001", plain(), RENDERER, 1)
    (folder / STATE).unlink()
    with pytest.raises(UserError, match="no training state"):
        restore(folder, plain())


def test_damaged_checkpoints_are_passed_over_and_named(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path / f"step-{step:05d}", plain(), RENDERER, step)
    weights = tmp_path / "step-00004" / "policy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    (tmp_path / "step-00003" / MARKER).unlink()
    (tmp_path / ".step-00005.tmp").mkdir()
    said: list[str] = []
    tidy(tmp_path)
    assert newest_whole(tmp_path, said.append) == tmp_path / "step-00002"
    assert len(said) == 2
    assert said[0].startswith("step-00004 is skipped") and "checksum differs" in said[0]
    assert said[1].startswith("step-00003 is skipped") and f"{MARKER} is missing" in said[1]
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"step-00001", "step-00002", ".step-00003.damaged", ".step-00004.damaged"}
    said.clear()
    assert newest_whole(tmp_path, said.append) == tmp_path / "step-00002" and not said


def test_a_run_without_a_checkpoint_has_none_to_go_on_from(tmp_path: Path) -> None:
    assert newest_whole(tmp_path / "nowhere", pytest.fail) is None
