"""Packing is only a matter of speed: every layout gives the same log-probabilities, loss and
gradients as one plain row per sample, on a real model in fp32."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.algo.losses import LOSSES
from rltrain.algo.scored import Scored
from rltrain.batch.packing import Batch, make_batch
from rltrain.train.logprobs import token_scores
from rltrain.types import Sample
from tests.makers import random_families, tiny_policy

HORIZON = 11
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@dataclass
class Outcome:
    logprobs: dict[float, float]
    """By behaviour log-probability, which is different for every token."""
    loss: float
    gradients: list[Tensor]


def outcome(batch: Batch, attention: str = "eager") -> Outcome:
    """Forward and backward of all micro-batches with a loss that couples a sequence's tokens."""
    loss = partial(LOSSES["gspo"], clip_low=0.9, clip_high=9.0)
    model = tiny_policy(attention=attention)
    logprobs: dict[float, float] = {}
    total = 0.0
    for micro in batch.micro_batches:
        new, entropy = token_scores(model, micro, 0.9)
        out = loss(
            Scored(
                new=new,
                old=micro.behaviour,
                trainer=micro.behaviour,
                behaviour=micro.behaviour,
                advantages=micro.advantages,
                seq=micro.seq,
                sequences=micro.sequences,
                entropy=entropy,
            )
        )
        value = (out.loss * micro.weights).sum()
        value.backward()
        total += float(value.detach())
        logprobs |= dict(zip(micro.behaviour.tolist(), new.tolist(), strict=True))
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert min(float(g.abs().max()) for g in gradients) > 1e-4  # far above the tolerance
    return Outcome(logprobs, total, gradients)


def pack(
    samples: list[Sample], aggregation: str = "constant", *, shared: bool, limit: int
) -> Batch:
    return make_batch(
        samples, AGGREGATIONS[aggregation], horizon=HORIZON, shared_prefix=shared, limit=limit
    )


def assert_same(one: Outcome, other: Outcome) -> None:
    assert one.logprobs.keys() == other.logprobs.keys()
    for key, value in one.logprobs.items():
        assert other.logprobs[key] == pytest.approx(value, rel=1e-5, abs=1e-6)
    assert other.loss == pytest.approx(one.loss, rel=1e-5, abs=1e-7)
    for a, b in zip(one.gradients, other.gradients, strict=True):
        torch.testing.assert_close(b, a, **CLOSE)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return random_families()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("aggregation", list(AGGREGATIONS))
def test_a_shared_prompt_gives_what_separate_rows_give(
    samples: list[Sample], aggregation: str, attention: str
) -> None:
    plain = pack(samples, aggregation, shared=False, limit=1)  # every sample alone, no padding
    shared = pack(samples, aggregation, shared=True, limit=10_000)
    assert len(plain.micro_batches) == len(samples)
    assert len(shared.micro_batches) == 1
    assert_same(outcome(plain, attention), outcome(shared, attention))


@pytest.mark.parametrize("aggregation", list(AGGREGATIONS))
@pytest.mark.parametrize("shared", [True, False])
def test_splitting_into_micro_batches_changes_nothing(
    samples: list[Sample], aggregation: str, shared: bool
) -> None:
    whole = outcome(pack(samples, aggregation, shared=shared, limit=10_000))
    seen = set()
    for limit in (1, 16, 40, 77):
        batch = pack(samples, aggregation, shared=shared, limit=limit)
        seen.add(len(batch.micro_batches))
        assert_same(whole, outcome(batch))
    assert len(seen) > 2  # the limits really made different splits


@pytest.mark.parametrize("aggregation", list(AGGREGATIONS))
def test_the_gradients_of_two_ranks_sum_to_those_of_one(
    samples: list[Sample], aggregation: str
) -> None:
    whole = pack(samples, aggregation, shared=True, limit=40)
    counts = (whole.tokens, whole.sequences)
    ranks = [
        make_batch(
            [s for s in samples if s.family % 2 == rank], AGGREGATIONS[aggregation],
            horizon=HORIZON, limit=40, world=lambda tokens, sequences: counts,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    one, (first, second) = outcome(whole), (outcome(rank) for rank in ranks)
    assert first.loss + second.loss == pytest.approx(one.loss, rel=1e-5, abs=1e-7)
    for a, b, c in zip(one.gradients, first.gradients, second.gradients, strict=True):
        torch.testing.assert_close(b + c, a, **CLOSE)


def test_what_the_environment_said_is_read_but_not_trained(samples: list[Sample]) -> None:
    two_turns = samples[-1]
    said = [t for t, m in enumerate(two_turns.loss_mask) if not m and t >= two_turns.prefix]
    assert len(said) == 3
    for shared in (True, False):
        batch = pack([two_turns], shared=shared, limit=1000)
        sampled = [i for i, m in zip(two_turns.ids, two_turns.loss_mask, strict=True) if m]
        assert batch.micro_batches[0].targets.tolist() == sampled
        assert batch.tokens == sum(two_turns.loss_mask)


def test_the_ratio_on_the_sampling_weights_is_exactly_one(samples: list[Sample]) -> None:
    (micro,) = pack(samples, shared=True, limit=10_000).micro_batches
    model = tiny_policy()
    with torch.no_grad():
        old = token_scores(model, micro, 0.9).logprobs
    new = token_scores(model, micro, 0.9).logprobs
    assert bool(((new - old).exp() == 1).all())
