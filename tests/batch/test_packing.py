"""How rows are laid out, by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.batch.packing import Batch, make_batch
from rltrain.types import Sample
from tests.makers import make_sample, without_logprob

A = make_sample((5, 6, 7), (10, 11))
B = make_sample((5, 6, 7), (20, 21, 22), advantage=-1.0)


def pack(samples: list[Sample], *, shared: bool = True, limit: int = 1000) -> Batch:
    return make_batch(
        samples, AGGREGATIONS["constant"], horizon=4, shared_prefix=shared, limit=limit
    )


def test_siblings_stand_behind_one_copy_of_their_prompt() -> None:
    (micro,) = pack([A, B]).micro_batches
    assert micro.ids.tolist() == [[5, 6, 7, 10, 11, 20, 21, 22]]
    assert micro.positions.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    assert micro.targets.tolist() == [10, 11, 20, 21, 22]
    # The first token of each branch is predicted by the prompt's last token, which is at 2.
    assert micro.source.tolist() == [2, 3, 2, 5, 6]
    assert micro.seq.tolist() == [0, 0, 1, 1, 1]
    assert micro.advantages.tolist() == [1, 1, -1, -1, -1]
    assert micro.weights.tolist() == [1 / (2 * 4)] * 5


def test_a_branch_sees_the_prompt_and_itself_but_never_its_sibling() -> None:
    (micro,) = pack([A, B]).micro_batches
    sees = [[int(x) for x in row] for row in micro.mask[0, 0]]
    assert sees[:5] == [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
    ]
    assert sees[5:] == [
        [1, 1, 1, 0, 0, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 1, 0],
        [1, 1, 1, 0, 0, 1, 1, 1],
    ]


def test_padded_gives_every_sample_a_row_of_its_own() -> None:
    (micro,) = pack([A, B], shared=False).micro_batches
    assert micro.ids.tolist() == [[5, 6, 7, 10, 11, 0], [5, 6, 7, 20, 21, 22]]
    assert micro.mask.tolist() == [[True] * 5 + [False], [True] * 6]
    assert micro.source.tolist() == [2, 3, 6 + 2, 6 + 3, 6 + 4]


def test_padding_attends_to_itself_because_nothing_at_all_would_be_nan() -> None:
    other = make_sample((8,), (9,), family=1)
    micro = pack([A, B, other]).micro_batches[0]
    short = micro.ids.tolist().index([8, 9, 0, 0, 0, 0, 0, 0])
    assert torch.equal(micro.mask[short, 0, 2:], torch.eye(8, dtype=torch.bool)[2:])


def test_a_token_without_a_finite_log_probability_leaves_loss_and_denominators() -> None:
    for value in (math.nan, -math.inf):
        values = (*B.logprobs[:4], value, B.logprobs[5])
        broken = dataclasses.replace(B, logprobs=values)
        batch = pack([A, broken])
        (micro,) = batch.micro_batches
        assert micro.targets.tolist() == [10, 11, 20, 22]
        assert (batch.tokens, batch.sequences, batch.dropped_tokens) == (4, 2, 1)
        assert torch.isfinite(micro.behaviour).all()


def test_a_sequence_that_lost_all_its_tokens_is_not_counted() -> None:
    lost = without_logprob(without_logprob(A, 3), 4)
    batch = pack([lost, B])
    assert (batch.tokens, batch.sequences, batch.dropped_tokens) == (3, 1, 2)
    assert batch.micro_batches[0].weights.tolist() == [1 / 4] * 3


def test_a_step_without_a_trainable_token_has_no_micro_batch() -> None:
    batch = pack([dataclasses.replace(A, loss_mask=(False,) * 5)])
    assert batch.micro_batches == ()
    assert (batch.tokens, batch.sequences) == (0, 0)


def test_a_row_longer_than_the_limit_stands_alone() -> None:
    long = make_sample(tuple(range(1, 20)), (1, 2), family=1)
    parts = pack([A, long, B], shared=False, limit=12).micro_batches
    assert [tuple(m.ids.shape) for m in parts] == [(2, 6), (1, 21)]


def test_no_micro_batch_of_several_rows_exceeds_the_limit() -> None:
    samples = [make_sample((1,), (2,) * n, family=n) for n in (1, 9, 4, 4, 2, 7, 3)]
    for limit in (1, 8, 13, 30):
        for shared in (True, False):
            for micro in pack(samples, shared=shared, limit=limit).micro_batches:
                rows, width = micro.ids.shape
                assert rows == 1 or rows * width <= limit


def test_a_family_too_long_for_one_row_is_split_and_keeps_its_prompt() -> None:
    parts = pack([A, B], limit=7).micro_batches  # together they would need 8
    assert [m.ids.tolist() for m in parts] == [[[5, 6, 7, 10, 11]], [[5, 6, 7, 20, 21, 22]]]


def test_siblings_that_disagree_on_their_prefix_are_refused() -> None:
    other = make_sample((5, 9, 7), (20,))
    with pytest.raises(ValueError, match="share their prefix"):
        pack([A, other])
    with pytest.raises(ValueError, match="share their prefix"):
        pack([A, dataclasses.replace(B, prefix=2)])


def test_denominators_are_those_of_all_ranks() -> None:
    batch = make_batch(
        [A, B], AGGREGATIONS["token_mean"], horizon=4, world=lambda t, s: (t + 15, s + 3)
    )
    assert (batch.tokens, batch.sequences) == (20, 5)
    assert batch.micro_batches[0].weights.tolist() == pytest.approx([1 / 20] * 5)
