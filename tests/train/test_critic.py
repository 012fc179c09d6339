"""PPO's critic: its loss and estimates worked by hand, what it learns, and whom it leaves alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.batch.packing import Batch, MicroBatch, make_batch
from rltrain.config.algo import AlgoConfig, KLConfig, LoraConfig, TrainConfig
from rltrain.config.critic import CriticConfig
from rltrain.config.precision import PrecisionConfig
from rltrain.train.actor_critic import ActorCriticLearner, last_of_each
from rltrain.train.critic import Critic, explained_variance
from rltrain.train.model import add_lora
from rltrain.train.objective import Objective
from rltrain.types import Sample
from tests.makers import make_sample, random_families, tiny_policy

TRAIN = TrainConfig(lr=1e-2)
PLAIN = CriticConfig(lr=1e-2, whiten=False)


def learner_of(
    config: CriticConfig = PLAIN,
    model: Any = None,
    train: TrainConfig = TRAIN,
    precision: str = "fp32",
) -> ActorCriticLearner:
    objective = Objective.from_config(AlgoConfig(advantage="reinforce", epochs=2), 1.0)
    chosen = PrecisionConfig.model_validate({"compute": precision})
    return ActorCriticLearner(model or tiny_policy(), objective, train, 10, config, chosen)


def batch_of(samples: list[Sample], *, shared: bool = True, limit: int = 40) -> Batch:
    return make_batch(
        samples,
        AGGREGATIONS["token_mean"],
        horizon=11,
        shared_prefix=shared,
        limit=limit,
        compute_all=True,
    )


def rewarded(reward: float) -> Batch:
    """Batches of several families; every answer earned the same."""
    return batch_of(
        [
            dataclasses.replace(s, advantages=tuple(reward if m else 0.0 for m in s.loss_mask))
            for s in random_families()
        ]
    )


def state_of(model: Any) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_reward_stands_on_the_last_trained_token_of_each_answer() -> None:
    values_N, seq_N = torch.tensor([2.0, 2.0, 3.0, 5.0, 5.0]), torch.tensor([0, 0, 1, 2, 2])
    assert last_of_each(values_N, seq_N).tolist() == [0, 2, 3, 0, 5]
    assert last_of_each(values_N[:0], seq_N[:0]).tolist() == []


def prepared(learner: ActorCriticLearner, batch: Batch) -> list[MicroBatch]:
    """What the policy's epochs are given."""
    learner._tokens = batch.tokens
    return learner._prepare(list(batch.micro_batches))


def with_constant_values(learner: ActorCriticLearner, value: float) -> ActorCriticLearner:
    with torch.no_grad():
        learner.critic.model.head.bias.fill_(value)
    return learner


def test_three_tokens_worked_by_hand() -> None:
    # Reward 1 after three tokens, all valued 0.5, gamma 1, lam 0.95:
    #   delta = 0, 0, 1 - 0.5    A_3 = 0.5, A_2 = 0.95 * 0.5 = 0.475, A_1 = 0.95 * 0.475 = 0.45125
    batch = batch_of([make_sample((5, 6), (7, 8, 9), advantage=1.0)])
    learner = with_constant_values(learner_of(), 0.5)
    (micro,) = prepared(learner, batch)
    assert micro.advantages.tolist() == pytest.approx([0.45125, 0.475, 0.5])
    # R = A + 0.5; the critic's loss before its first step is half the mean of A^2.
    measured = learner._measured
    assert measured["value/loss"] == pytest.approx((0.45125**2 + 0.475**2 + 0.5**2) / 6)
    assert measured["value/mean"] == 0.5
    assert measured["value/explained_variance"] == 0.0  # what was observed, 1, has no spread


def test_discount_and_lambda_reach_the_estimate() -> None:
    # gamma 0.5, lam 0: A_t = r_t + 0.5 V_{t+1} - V_t with V = 0.5: -0.25, -0.25, 1 - 0.5.
    batch = batch_of([make_sample((5, 6), (7, 8, 9), advantage=1.0)])
    config = PLAIN.model_copy(update={"gamma": 0.5, "lam": 0.0})
    (micro,) = prepared(with_constant_values(learner_of(config), 0.5), batch)
    assert micro.advantages.tolist() == pytest.approx([-0.25, -0.25, 0.5])


def test_advantages_are_whitened_over_the_whole_step() -> None:
    batch = batch_of(random_families())
    assert len(batch.micro_batches) > 1
    white = prepared(learner_of(PLAIN.model_copy(update={"whiten": True})), batch)
    plain = prepared(learner_of(), batch)
    white_N, plain_N = (torch.cat([m.advantages for m in part]) for part in (white, plain))
    torch.testing.assert_close(white_N, (plain_N - plain_N.mean()) / plain_N.std())
    assert any(abs(float(m.advantages.mean())) > 0.1 for m in white)  # not one by one


def test_values_do_not_depend_on_how_a_step_is_packed() -> None:
    critic = Critic(tiny_policy(), PLAIN, TRAIN)
    torch.nn.init.normal_(critic.model.head.weight)

    def by_token(batch: Batch) -> dict[float, float]:
        found: dict[float, float] = {}  # by behaviour log-probability: different for every token
        values = critic.values(batch.micro_batches)
        for micro, values_N in zip(batch.micro_batches, values, strict=True):
            found |= dict(zip(micro.behaviour.tolist(), values_N.tolist(), strict=True))
        return found

    shared = by_token(batch_of(random_families(), limit=10_000))
    alone = by_token(batch_of(random_families(), shared=False, limit=1))
    assert shared.keys() == alone.keys()
    assert len({round(v, 3) for v in shared.values()}) > 10
    assert all(alone[k] == pytest.approx(v, rel=1e-5, abs=1e-6) for k, v in shared.items())


def test_the_first_values_are_zero_so_the_first_advantages_are_the_reward() -> None:
    # V = 0, gamma = lam = 1: A_t = the reward of the answer at every token.
    config = PLAIN.model_copy(update={"lam": 1.0})
    for micro in prepared(learner_of(config), rewarded(0.75)):
        torch.testing.assert_close(micro.advantages, torch.full_like(micro.advantages, 0.75))


def test_kl_in_the_reward_goes_through_the_critic_and_is_not_taken_off_twice() -> None:
    # gamma = lam = 1 and V = 0: A_t = r - 0.5 * (k1 summed over t and later tokens), where
    # k1 = log pi - log pi_ref of each token; the reference is made another policy here.
    algo = AlgoConfig(
        advantage="reinforce", kl=KLConfig(coef=0.5, estimator="k1", placement="reward")
    )
    objective = Objective.from_config(algo, 1.0)
    config = PLAIN.model_copy(update={"lam": 1.0})
    learner = ActorCriticLearner(tiny_policy(), objective, TRAIN, 10, config)
    assert learner.reference is not None
    learner.reference._model = tiny_policy(seed=1)
    sample = make_sample((5, 6), (7, 8, 9), advantage=1.0)
    (micro,) = prepared(learner, batch_of([sample]))

    def logprobs(model: Any) -> Tensor:
        rows = model(input_ids=torch.tensor([sample.ids])).logits[0, 1:-1].log_softmax(-1)
        return rows[torch.arange(3), torch.tensor(sample.ids[2:])].detach()

    k1_T = logprobs(learner.model) - logprobs(learner.reference._model)
    expected_T = 1 - 0.5 * k1_T.flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(micro.advantages, expected_T, rtol=1e-4, atol=1e-5)
    assert float((expected_T - 1).abs().max()) > 0.1
    assert learner.objective.kl_coef == 0.0


def test_a_constant_reward_is_learned() -> None:
    learner = learner_of(PLAIN.model_copy(update={"clip": 0.0, "epochs": 4}))
    batch = rewarded(0.8)
    losses = [learner.step(batch).metrics["value/loss"] for _ in range(15)]
    assert losses[0] > 0.2
    assert losses[-1] < losses[0] / 50
    values_N = torch.cat(learner.critic.values(batch.micro_batches))
    assert float((values_N - 0.8).abs().max()) < 0.2


def test_a_value_is_held_back_after_the_first_epoch() -> None:
    learner = learner_of(PLAIN.model_copy(update={"clip": 1e-4, "epochs": 3}))
    assert learner.step(rewarded(1.0)).metrics["value/clipped"] > 0.5
    once = learner_of(PLAIN.model_copy(update={"clip": 1e-4}))
    assert once.step(rewarded(1.0)).metrics["value/clipped"] == 0.0


def test_while_the_critic_warms_up_the_policy_does_not_change_by_a_bit() -> None:
    learner = learner_of(PLAIN.model_copy(update={"warmup_steps": 2}))
    policy, critic = state_of(learner.model), state_of(learner.critic.model)
    for _ in range(2):
        stats = learner.step(batch_of(random_families()))
        assert same(state_of(learner.model), policy)
        assert not same(state_of(learner.critic.model), critic)
        assert (stats.lr, stats.grad_norm) == (0.0, 0.0)
        assert stats.metrics["policy/entropy"] > 0
    stats = learner.step(batch_of(random_families()))
    assert stats.lr == TRAIN.lr
    assert not same(state_of(learner.model), policy)


def test_the_policys_schedule_begins_after_the_warm_up_and_ends_with_the_run() -> None:
    train = TRAIN.model_copy(update={"decay": "linear"})
    learner = learner_of(PLAIN.model_copy(update={"warmup_steps": 8}), train=train)
    rates = [learner.step(batch_of(random_families())).lr for _ in range(10)]
    # Two of ten steps train the policy, with two optimizer steps each: 1, 3/4, 1/2, 1/4.
    assert rates == pytest.approx([0.0] * 8 + [1e-2, 0.5e-2])


def test_policy_and_critic_share_no_weight() -> None:
    learner = learner_of()
    policy = {p.data_ptr() for p in learner.model.parameters()}
    assert policy.isdisjoint(p.data_ptr() for p in learner.critic.model.parameters())
    before = state_of(learner.model)
    micros = rewarded(1.0).micro_batches
    values = learner.critic.values(micros)
    learner.critic.fit(micros, values, [torch.ones_like(v) for v in values], 1)
    assert same(state_of(learner.model), before)


def test_an_empty_batch_changes_neither() -> None:
    learner = learner_of(PLAIN.model_copy(update={"warmup_steps": 1}))
    before = state_of(learner.model), state_of(learner.critic.model)
    stats = learner.step(batch_of([]))
    assert stats.tokens == 0
    assert same(state_of(learner.model), before[0])
    assert same(state_of(learner.critic.model), before[1])
    assert learner.critic.steps == 0  # it learned nothing, so it is still to be warmed up


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_is_finite_and_keeps_fp32_weights_and_values(precision: str) -> None:
    learner = learner_of(precision=precision)
    for _ in range(2):
        stats = learner.step(batch_of(random_families()))
    assert all(math.isfinite(v) for v in stats.metrics.values())
    weights = list(learner.critic.model.parameters())
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in weights)
    assert learner.critic.values(rewarded(1.0).micro_batches)[0].dtype == torch.float32


def test_with_lora_the_critic_has_adapters_of_its_own() -> None:
    learner = learner_of(model=add_lora(tiny_policy(), LoraConfig(rank=2, alpha=4)))
    before = state_of(learner.critic.model)
    for _ in range(3):
        learner.step(batch_of(random_families()))
    after = learner.critic.model.state_dict()
    moved = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert moved == {k for k in before if "lora_" in k} | {"head.weight", "head.bias"}
    assert set(learner.critic.state_dict()["model"]) == moved


def test_a_reward_of_zero_is_computed_because_it_is_information() -> None:
    samples = [make_sample((5, 6), (7, 8), advantage=0.0), make_sample((5, 6), (9,), advantage=1.0)]
    batch = batch_of(samples)
    assert sum(len(m.targets) for m in batch.micro_batches) == batch.tokens == 3
    skipped = make_batch(samples, AGGREGATIONS["token_mean"], horizon=11)
    assert sum(len(m.targets) for m in skipped.micro_batches) == 1
    assert skipped.tokens == 3


def test_explained_variance_worked_by_hand() -> None:
    observed = torch.tensor([0.0, 1.0, 0.0, 1.0])
    assert explained_variance(observed, observed) == 1.0
    assert explained_variance(torch.full((4,), 0.3), observed) == 0.0
    # Errors 0.5, -0.5, 0.5, -0.5 with the sign turned round: values 1 - observed give variance 1
    # of the error 2 observed - 1, against 0.25 observed: 1 - 1 / 0.25 = -3.
    assert explained_variance(1 - observed, observed) == -3.0
    assert explained_variance(observed, torch.ones(4)) == 0.0
    assert explained_variance(observed[:0], observed[:0]) == 0.0
