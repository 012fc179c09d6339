"""The learner's scores through the kernels: as the plain head's, and chosen by name or by size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.batch.packing import MicroBatch, make_batch
from rltrain.config.algo import AlgoConfig, TrainConfig
from rltrain.config.precision import PrecisionConfig
from rltrain.errors import UserError
from rltrain.train import logprobs
from rltrain.train.learner import PolicyLearner
from rltrain.train.logprobs import set_kernel, token_scores
from rltrain.train.objective import Objective
from rltrain_kernels.available import triton_runs_on
from tests.makers import random_families, tiny_policy


def micro_batch() -> MicroBatch:
    batch = make_batch(random_families(), AGGREGATIONS["token_mean"], horizon=11, limit=4096)
    return batch.micro_batches[0]


def scores_and_gradients(kernel: str) -> dict[str, Tensor]:
    """Of the tiny policy, with its tied head, and with an entropy term."""
    model, micro = tiny_policy(), micro_batch()
    set_kernel(model, kernel)
    scores = token_scores(model, micro, 0.8, entropy_grad=True)
    (scores.logprobs.sum() + 0.1 * scores.entropy.sum()).backward()
    found = {"logprobs": scores.logprobs.detach(), "entropy": scores.entropy.detach()}
    return found | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_the_chunked_head_scores_as_the_plain_one() -> None:
    plain, chunked = scores_and_gradients("plain"), scores_and_gradients("chunked")
    assert plain.keys() == chunked.keys()
    for name, value in plain.items():
        torch.testing.assert_close(chunked[name], value, rtol=1e-4, atol=1e-5)


def test_an_entropy_that_is_only_measured_carries_no_gradient() -> None:
    model = tiny_policy()
    set_kernel(model, "chunked")
    assert not token_scores(model, micro_batch(), 0.8).entropy.requires_grad


def test_auto_leaves_the_plain_head_where_the_vocabulary_is_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = tiny_policy().get_output_embeddings()
    assert logprobs._kernel_for(head) is None
    monkeypatch.setattr(logprobs, "LARGE_VOCABULARY", head.weight.shape[0])
    assert logprobs._kernel_for(head) == "auto"
    head.logprob_kernel = "plain"
    assert logprobs._kernel_for(head) is None


def test_the_learner_takes_its_kernel_from_the_config() -> None:
    objective = Objective.from_config(AlgoConfig(), 1.0)
    learner = PolicyLearner(tiny_policy(), objective, TrainConfig(logprob_kernel="chunked"), 1)
    assert logprobs._kernel_for(learner.model.get_output_embeddings()) == "torch"


def test_a_kernel_that_cannot_run_is_refused_before_training() -> None:
    objective = Objective.from_config(AlgoConfig(), 1.0)
    fp32_head = PrecisionConfig(compute="bf16", head="fp32")
    with pytest.raises(UserError, match="plain linear output head"):
        PolicyLearner(
            tiny_policy(), objective, TrainConfig(logprob_kernel="chunked"), 1, fp32_head
        )
    if not triton_runs_on(torch.device("cpu")):
        with pytest.raises(UserError, match="needs Triton and a GPU"):
            set_kernel(tiny_policy(), "triton")
