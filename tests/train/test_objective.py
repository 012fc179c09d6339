"""The whole objective through the real learner, on a tiny random model."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.algo.corrections import CORRECTIONS
from rltrain.algo.kl import KL
from rltrain.algo.losses import LOSSES
from rltrain.batch.packing import Batch, make_batch
from rltrain.config.algo import AlgoConfig, KLConfig, LoraConfig, TrainConfig
from rltrain.errors import UserError
from rltrain.train.learner import PolicyLearner
from rltrain.train.model import add_lora
from rltrain.train.objective import Objective
from rltrain.train.totals import Totals
from rltrain.types import Sample, StepStats
from tests.makers import make_sample, random_families, tiny_policy, without_logprob

CONFIG = TrainConfig(lr=1e-2, eps=1e-3, max_grad_norm=0.5)
PER_MICRO_BATCH = ("clip_cov", "kl_cov")
"""Losses that say in their docstring that they depend on the split."""


def learner_of(algo: AlgoConfig, model: Any = None, train: TrainConfig = CONFIG) -> PolicyLearner:
    objective = Objective.from_config(algo, 0.8)
    return PolicyLearner(model or tiny_policy(), objective, train, max_steps=10)


def batch_of(samples: list[Sample], limit: int = 40, aggregation: str = "sequence_mean") -> Batch:
    return make_batch(samples, AGGREGATIONS[aggregation], horizon=11, limit=limit, compute_all=True)


def weights_of(learner: PolicyLearner) -> list[Tensor]:
    return [p.detach().clone() for p in learner.model.parameters()]


def gradient(algo: AlgoConfig, batch: Batch) -> Tensor:
    """The first pass's gradient, before clipping, as one vector."""
    learner = learner_of(algo)
    references: list[Tensor | None] = [None] * len(batch.micro_batches)
    if learner.reference:
        references = list(learner.reference.logprobs(batch.micro_batches, 0.8, learner.precision))
    for micro, reference in zip(batch.micro_batches, references, strict=True):
        learner._backward(micro, None, reference, batch.tokens)
    return torch.cat([p.grad.flatten() for p in learner.parameters if p.grad is not None])


VARIANTS = {
    **{f"loss {k}": AlgoConfig(loss=k, epochs=2) for k in LOSSES if k not in PER_MICRO_BATCH},
    **{f"correction {k}": AlgoConfig(correction=k, epochs=2) for k in CORRECTIONS},
    **{f"kl {k}": AlgoConfig(kl=KLConfig(coef=0.3, estimator=k), epochs=2) for k in KL},
    "kl in reward": AlgoConfig(kl=KLConfig(coef=0.3, estimator="k1", placement="reward")),
    "entropy": AlgoConfig(entropy_coef=0.3),
    "approximate": AlgoConfig(proximal="approximate", epochs=2),
    "behaviour": AlgoConfig(proximal="behaviour", correction="opsm", epochs=2),
}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_step_is_the_same_however_it_is_split(name: str) -> None:
    """Two passes, so that ratios differ from 1 in the second: loss, weights and metrics agree."""
    samples = [dataclasses.replace(s, version=-2) for s in random_families()]
    whole, split = (learner_of(VARIANTS[name]) for _ in range(2))
    batches = batch_of(samples, 10_000), batch_of(samples, 1)
    assert len(batches[0].micro_batches) == 1 < len(batches[1].micro_batches)
    one, many = whole.step(batches[0]), split.step(batches[1])
    assert many.loss == pytest.approx(one.loss, rel=1e-5, abs=1e-7)
    for a, b in zip(weights_of(whole), weights_of(split), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=2e-6)
    assert many.metrics == pytest.approx(dict(one.metrics), rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("name", list(LOSSES))
def test_on_policy_the_ratio_is_exactly_one_for_every_loss(name: str) -> None:
    metrics = learner_of(AlgoConfig(loss=name)).step(batch_of(random_families())).metrics
    assert metrics["ratio/mean"] == 1.0
    if name not in PER_MICRO_BATCH:
        assert metrics["ratio/clipped"] == 0.0


@pytest.mark.parametrize("name", list(LOSSES))
def test_without_advantage_there_is_no_gradient_for_any_loss(name: str) -> None:
    flat = [dataclasses.replace(s, advantages=(0.0,) * len(s.ids)) for s in random_families()]
    assert learner_of(AlgoConfig(loss=name)).step(batch_of(flat)).grad_norm == 0.0


def test_a_sequence_without_advantage_still_feels_kl_and_entropy() -> None:
    flat = [dataclasses.replace(s, advantages=(0.0,) * len(s.ids)) for s in random_families()]
    assert not Objective.from_config(AlgoConfig(), 1.0).moves_without_advantage
    algo = AlgoConfig(entropy_coef=0.1)
    assert Objective.from_config(algo, 1.0).moves_without_advantage
    assert learner_of(algo).step(batch_of(flat)).grad_norm > 0
    held = AlgoConfig(kl=KLConfig(coef=0.1), epochs=1)
    learner = learner_of(held)
    learner.step(batch_of(random_families()))  # away from the reference
    assert learner.step(batch_of(flat)).grad_norm > 0


def test_a_token_without_logprob_has_no_part_in_anything() -> None:
    """Neither in loss nor denominators nor metrics: as if it had not been sampled."""
    sample = make_sample([3, 4], [5, 6, 7])
    lost = without_logprob(sample, 3)
    cut = dataclasses.replace(
        sample, loss_mask=tuple(m and t != 3 for t, m in enumerate(sample.loss_mask))
    )
    stats: list[StepStats] = []
    for one in (lost, cut):
        stats.append(learner_of(AlgoConfig()).step(batch_of([one], aggregation="token_mean")))
    assert (stats[0].loss, stats[0].grad_norm, stats[0].tokens) == (
        stats[1].loss, stats[1].grad_norm, 2,
    )  # fmt: skip
    ignored = {"tokens/without_logprob"}
    assert {k: v for k, v in stats[0].metrics.items() if k not in ignored} == {
        k: v for k, v in stats[1].metrics.items() if k not in ignored
    }
    assert stats[0].metrics["tokens/without_logprob"] == 1.0


def test_entropy_bonus_is_the_gradient_of_the_mean_entropy() -> None:
    batch = batch_of(random_families())
    plain, with_bonus = (gradient(AlgoConfig(entropy_coef=c), batch) for c in (0.0, 0.3))
    model = tiny_policy()
    total = torch.zeros(())
    for sample in random_families():
        logits = model(input_ids=torch.tensor([sample.ids])).logits[0, :-1] / 0.8
        logp = logits.log_softmax(-1)[torch.tensor(sample.loss_mask[1:])]
        total = total - (logp.exp() * logp).sum() / batch.tokens
    total.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(plain - with_bonus, 0.3 * expected, rtol=1e-4, atol=1e-6)


def test_only_tokens_of_high_entropy_carry_the_policy_loss() -> None:
    # 11 tokens: the quantile 1 - 0.3 lies at position 0.7 * 10 = 7, so the last four stay.
    batch = batch_of([make_sample([3, 4], range(5, 16))])
    learner = learner_of(AlgoConfig(loss="reinforce", top_entropy=0.3))
    scored, terms = learner._backward(batch.micro_batches[0], None, None, batch.tokens)
    top = scored.entropy.topk(4).indices
    weights = (terms.weight * batch.micro_batches[0].weights)[top]
    expected = -(weights * scored.advantages[top] * scored.new[top]).sum()
    assert terms.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_kl_in_the_reward_changes_advantages_after_they_are_normalised() -> None:
    """On the reference itself nothing changes; away from it, later tokens cost earlier ones."""
    algo = AlgoConfig(
        loss="reinforce",
        correction="none",
        kl=KLConfig(coef=0.5, estimator="k1", placement="reward"),
    )
    learner, plain = learner_of(algo), learner_of(AlgoConfig(loss="reinforce", correction="none"))
    batch = batch_of([make_sample([3, 4], [5, 6, 7])], aggregation="token_mean")
    first = learner.step(batch)
    assert first.loss == pytest.approx(plain.step(batch).loss)
    assert first.metrics["kl/mean"] == 0.0
    assert learner.reference is not None
    (micro,) = batch.micro_batches
    (ref_N,) = learner.reference.logprobs([micro], 0.8, learner.precision)
    scored, _ = learner._backward(micro, None, ref_N, batch.tokens)
    k1 = (scored.trainer - ref_N).tolist()
    expected = [1 - 0.5 * sum(k1[t:]) for t in range(3)]
    assert learner.objective.with_penalty(scored).advantages.tolist() == pytest.approx(expected)
    assert max(map(abs, k1)) > 1e-3


@pytest.mark.parametrize("lora", [False, True])
def test_the_reference_stays_where_training_began(lora: bool) -> None:
    model = tiny_policy()
    if lora:
        model = add_lora(model, LoraConfig(rank=4, alpha=8, dropout=0.5))
    learner = learner_of(AlgoConfig(kl=KLConfig(coef=1e-6)), model)
    assert learner.reference is not None
    batch = batch_of(random_families())

    def reference() -> list[Tensor]:
        assert learner.reference is not None
        return learner.reference.logprobs(batch.micro_batches, 0.8, learner.precision)

    model.train()
    before = reference()
    assert model.training  # the reference is scored without dropout, the policy goes on with it
    kl = [learner.step(batch).metrics["kl/mean"] for _ in range(3)]
    if not lora:  # with dropout the first pass is not the reference's
        assert kl[0] == 0.0
    assert kl[2] > 1e-5
    for a, b in zip(before, reference(), strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=0)


def test_without_a_kl_term_no_reference_is_kept() -> None:
    assert learner_of(AlgoConfig()).reference is None


def test_a_skipped_update_is_counted_and_leaves_the_schedule_where_it_was() -> None:
    train = CONFIG.model_copy(update={"warmup_steps": 4})
    learner = learner_of(AlgoConfig(epochs=2), train=train)
    bad = [
        dataclasses.replace(s, advantages=tuple(math.nan if m else 0.0 for m in s.loss_mask))
        for s in random_families()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns if the schedule moves before the optimizer
        skipped = learner.step(batch_of(bad))
        taken = learner.step(batch_of(random_families()))
    assert skipped.metrics["train/skipped"] == 2.0
    assert taken.metrics["train/skipped"] == 0.0
    assert taken.lr == skipped.lr == pytest.approx(0.25 * train.lr)
    assert learner.version == 2


def test_lags_are_counted_from_the_version_that_the_step_began_with() -> None:
    samples = random_families()
    samples[-1] = dataclasses.replace(  # two turns, the second sampled one version later
        samples[-1], versions=tuple(0 if t < 16 else 1 for t in range(len(samples[-1].ids)))
    )
    learner = learner_of(AlgoConfig())
    learner.step(batch_of(samples))
    metrics = learner.step(batch_of(samples)).metrics
    by_lag = {k: v for k, v in metrics.items() if "/lag_" in k}
    assert sorted(by_lag) == [f"mismatch/mean_abs_logprob/lag_{lag}" for lag in (0, 1)]
    tokens = sum(sum(s.loss_mask) for s in samples)
    late = sum(m for t, m in enumerate(samples[-1].loss_mask) if t >= 16)
    mean = (by_lag["mismatch/mean_abs_logprob/lag_0"] * late
            + by_lag["mismatch/mean_abs_logprob/lag_1"] * (tokens - late)) / tokens  # fmt: skip
    assert metrics["mismatch/mean_abs_logprob"] == pytest.approx(mean, rel=1e-5)
    assert 0 < late < tokens


def test_an_argument_that_the_loss_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match=r"clip_hihg is no argument of gspo \(clip_high, clip_low"):
        Objective.from_config(AlgoConfig(loss="gspo", loss_args={"clip_hihg": 1}), 1.0)


def test_totals_add_up_over_parts() -> None:
    def totals(*parts: list[float]) -> Totals:
        out = Totals()
        for part in parts:
            values = torch.tensor(part)
            out.add({"a/w": values, "a/w_sq": values**2})
            out.largest("a/top", values)
        return out

    whole, merged = totals([1.0, 2.0, 3.0]), totals([1.0, 2.0])
    merged.merge(totals([3.0]))
    # (mean 2)^2 / mean 14/3 = 6/7
    expected = {"a/w": 2.0, "a/ess": 6 / 7, "a/top": 3.0, "train/skipped": 0.0}
    assert whole.metrics() == pytest.approx(expected)
    assert merged.metrics() == pytest.approx(expected)
    assert totals([]).metrics() == {"a/w": 0.0, "train/skipped": 0.0}
