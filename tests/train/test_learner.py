"""The learner's step against the same mathematics written out plainly, and its edges."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rltrain.algo.advantages import mean_centred
from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.batch.packing import Batch, make_batch
from rltrain.batch.samples import batch_samples
from rltrain.config.algo import AlgoConfig, LoraConfig, TrainConfig
from rltrain.config.precision import PrecisionConfig
from rltrain.train import logprobs as logprobs_module
from rltrain.train.learner import PolicyLearner, learning_rate
from rltrain.train.model import add_lora
from rltrain.train.objective import Objective
from rltrain.types import Sample
from tests.makers import make_group, random_families, tiny_policy

TEMPERATURE = 0.8
HORIZON = 11
# A large eps: where a gradient is rounding noise, Adam would otherwise turn its sign into a step.
CONFIG = TrainConfig(lr=1e-2, eps=1e-3, max_grad_norm=0.5, weight_decay=0.1)


def learner_of(
    model: Any,
    config: TrainConfig = CONFIG,
    algo: AlgoConfig | None = None,
    precision: str = "fp32",
) -> PolicyLearner:
    algo = algo or AlgoConfig(epochs=2, correction_args={"cap": 1.2})
    chosen = PrecisionConfig.model_validate({"compute": precision})
    return PolicyLearner(model, Objective.from_config(algo, TEMPERATURE), config, 10, chosen)


def batch_of(samples: list[Sample], limit: int = 40) -> Batch:
    return make_batch(samples, AGGREGATIONS["constant"], horizon=HORIZON, limit=limit)


def snapshot(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def changed(model: Any, before: dict[str, Tensor]) -> set[str]:
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def with_advantage(samples: list[Sample], value: float) -> list[Sample]:
    return [
        dataclasses.replace(s, advantages=tuple(value if m else 0.0 for m in s.loss_mask))
        for s in samples
    ]


def plain_logprobs(model: Any, sample: Sample) -> Tensor:
    """Log-probabilities of the sampled tokens from the model's own logits, one sample at a time."""
    ids = torch.tensor([sample.ids])
    logits = model(input_ids=ids).logits[0, :-1] / TEMPERATURE
    rows = torch.log_softmax(logits, -1)[torch.arange(len(sample.ids) - 1), ids[0, 1:]]
    return rows[torch.tensor(sample.loss_mask[1:])]


def plain_steps(model: Any, samples: list[Sample]) -> list[float]:
    """Two epochs of PPO with truncated importance sampling; returns each epoch's loss."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-2, eps=1e-3, betas=(0.9, 0.95), weight_decay=0.1
    )
    old = [plain_logprobs(model, s).detach() for s in samples]
    losses = []
    for _ in range(2):
        total = torch.zeros(())
        for sample, old_T in zip(samples, old, strict=True):
            where = torch.tensor(sample.loss_mask)
            mu_T, a_T = torch.tensor(sample.logprobs)[where], torch.tensor(sample.advantages)[where]
            ratio_T = (plain_logprobs(model, sample) - old_T).exp()
            surrogate_T = torch.min(ratio_T * a_T, ratio_T.clamp(0.8, 1.2) * a_T)
            weight_T = (old_T - mu_T).exp().clamp(max=1.2)
            total = total - (weight_T * surrogate_T).sum() / (len(samples) * HORIZON)
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(float(total.detach()))
    return losses


@pytest.mark.parametrize("budget", [None, 48 * 3], ids=["whole head", "head in chunks of 3"])
def test_a_step_is_what_the_formulas_say(
    monkeypatch: pytest.MonkeyPatch, budget: int | None
) -> None:
    if budget:
        monkeypatch.setattr(logprobs_module, "LOGITS_BUDGET", budget)
    samples = random_families()
    model = tiny_policy()
    plain = copy.deepcopy(model)
    before = snapshot(model)
    losses = plain_steps(plain, samples)
    stats = learner_of(model).step(batch_of(samples))
    assert stats.loss == pytest.approx(losses[0], rel=1e-5, abs=1e-7)
    assert changed(model, before) == set(before)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-6, msg=name)


def test_on_its_own_weights_the_ratio_is_one_and_mismatch_is_what_the_engine_differed_by() -> None:
    samples = random_families()
    model = tiny_policy()
    with torch.no_grad():
        differences = torch.cat(
            [plain_logprobs(model, s) - torch.tensor(s.logprobs)[torch.tensor(s.loss_mask)]
             for s in samples]
        )  # fmt: skip
    metrics = learner_of(model).step(batch_of(samples)).metrics
    assert metrics["ratio/mean"] == 1.0
    assert metrics["ratio/clipped"] == 0.0
    assert metrics["mismatch/mean_abs_logprob"] == pytest.approx(
        float(differences.abs().mean()), rel=1e-5
    )
    assert metrics["mismatch/max_abs_logprob"] == pytest.approx(
        float(differences.abs().max()), rel=1e-5
    )
    weights = differences.exp().clamp(max=1.2)
    assert metrics["correction/weight"] == pytest.approx(float(weights.mean()), rel=1e-5)
    assert metrics["correction/ess"] == pytest.approx(
        float(weights.mean() ** 2 / (weights**2).mean()), rel=1e-5
    )
    assert 0 < metrics["policy/entropy"] <= math.log(48)


def test_a_group_without_spread_has_a_gradient_of_exactly_zero() -> None:
    model = tiny_policy()
    before = snapshot(model)
    samples = batch_samples([make_group([1, 1, 1]), make_group([0, 0], lease=1)], mean_centred)
    stats = learner_of(model, TrainConfig(lr=1e-2)).step(batch_of(samples))
    assert stats.tokens == 10
    assert stats.grad_norm == 0.0
    assert changed(model, before) == set()


def test_an_empty_batch_changes_nothing() -> None:
    model = tiny_policy()
    before = snapshot(model)
    stats = learner_of(model).step(batch_of([]))
    assert (stats.loss, stats.grad_norm, stats.tokens) == (0.0, 0.0, 0)
    assert changed(model, before) == set()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_in_every_precision_is_finite_and_keeps_fp32_weights(precision: str) -> None:
    model = tiny_policy()
    before = snapshot(model)
    learner = learner_of(model, precision=precision)
    stats = learner.step(batch_of(random_families()))
    assert all(math.isfinite(v) for v in (stats.loss, stats.grad_norm, *stats.metrics.values()))
    assert changed(model, before) == set(before)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in model.parameters())


def test_half_precisions_agree_with_fp32_to_their_accuracy() -> None:
    losses = {}
    for precision in ("fp32", "bf16", "fp16"):
        learner = learner_of(tiny_policy(), CONFIG, AlgoConfig(), precision)
        losses[precision] = learner.step(batch_of(random_families())).loss
    assert losses["fp16"] == pytest.approx(losses["fp32"], abs=2e-3)
    assert losses["bf16"] == pytest.approx(losses["fp32"], abs=2e-2)
    assert losses["bf16"] != losses["fp32"]  # it did compute in another precision


def test_an_overflow_in_fp16_skips_the_step_and_lowers_the_scale() -> None:
    model = tiny_policy()
    before = snapshot(model)
    learner = learner_of(model, CONFIG, AlgoConfig(), "fp16")
    stats = learner.step(batch_of(with_advantage(random_families(), 1e37)))
    assert changed(model, before) == set()
    assert stats.metrics["precision/loss_scale"] == 2.0**15
    after = learner.step(batch_of(random_families()))
    assert math.isfinite(after.grad_norm)
    assert changed(model, before) == set(before)
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_leaves_weights_and_optimizer_alone(
    precision: str, bad: float
) -> None:
    model, other = tiny_policy(), tiny_policy()
    before = snapshot(model)
    learner = learner_of(model, precision=precision)
    fresh = learner_of(other, precision=precision)
    stats = learner.step(batch_of(with_advantage(random_families(), bad)))
    assert not math.isfinite(stats.grad_norm)
    assert changed(model, before) == set()
    # The next step is that of a learner which never saw it.
    learner.step(batch_of(random_families()))
    fresh.step(batch_of(random_families()))
    assert changed(model, snapshot(other)) == set()


def test_lora_trains_the_adapter_and_nothing_else() -> None:
    model = add_lora(tiny_policy(), LoraConfig(rank=2, alpha=4))
    before = snapshot(model)
    learner = learner_of(model, CONFIG, AlgoConfig())
    learner.step(batch_of(random_families()))  # B starts at 0, so A has no gradient yet
    learner.step(batch_of(random_families()))
    moved = changed(model, before)
    assert moved == {name for name in before if "lora_" in name}
    assert len(moved) == 2 * 7 * 2  # A and B of seven projections in two layers


def test_the_learning_rate_warms_up_and_decays_as_worked_by_hand() -> None:
    def factors(decay: str) -> list[float]:
        config = TrainConfig(warmup_steps=2, decay=decay)
        return [learning_rate(config, 6)(k) for k in range(7)]

    assert factors("constant") == [0.5, 1, 1, 1, 1, 1, 1]
    assert factors("linear") == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25, 0])
    half = math.sqrt(0.5) / 2
    cosine = [0.5, 1, 1, 0.5 + half, 0.5, 0.5 - half, 0]
    assert factors("cosine") == pytest.approx(cosine, abs=1e-6)


def test_the_reported_learning_rate_is_the_one_of_the_step() -> None:
    config = CONFIG.model_copy(update={"warmup_steps": 4, "lr": 0.01})
    learner = learner_of(tiny_policy(), config, AlgoConfig())
    rates = [learner.step(batch_of(random_families())).lr for _ in range(5)]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])
