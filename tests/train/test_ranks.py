"""Two processes with half of the step each, over gloo: the sum of their gradients is the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.batch.packing import Batch, make_batch
from rltrain.config.algo import AlgoConfig, KLConfig, TrainConfig
from rltrain.train.learner import PolicyLearner
from rltrain.train.objective import Objective
from tests.makers import random_families, tiny_policy

ALGO = AlgoConfig(loss="gspo", kl=KLConfig(coef=0.2, estimator="k2"), entropy_coef=0.1)
RANKS = 2


def over_ranks(tokens: int, sequences: int) -> tuple[int, int]:
    counts = torch.tensor([tokens, sequences])
    dist.all_reduce(counts)
    return int(counts[0]), int(counts[1])


def gradient(batch: Batch) -> Tensor:
    """Of this rank's part, with the loss appended."""
    learner = PolicyLearner(
        tiny_policy(), Objective.from_config(ALGO, 0.8), TrainConfig(), max_steps=1
    )
    assert learner.reference is not None
    total = torch.zeros(1)
    for micro in batch.micro_batches:
        (reference,) = learner.reference.logprobs([micro], 0.7, learner.precision)
        _, terms = learner._backward(micro, None, reference, batch.tokens)
        total += terms.loss.detach()
    grads = [p.grad.flatten() for p in learner.parameters if p.grad is not None]
    return torch.cat([*grads, total])


def rank_main(rank: int, folder: str) -> None:
    """One rank: half of the families, counts summed before anything is divided."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS)
    mine = [s for s in random_families() if s.family % RANKS == rank]
    for name, aggregate in AGGREGATIONS.items():
        batch = make_batch(mine, aggregate, horizon=11, limit=40, world=over_ranks)
        total = gradient(batch)
        dist.all_reduce(total)
        if rank == 0:
            torch.save(total, Path(folder) / f"{name}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def summed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    # Forked, so that the children need not import everything again.
    mp.start_processes(rank_main, (str(folder),), nprocs=RANKS, start_method="fork")
    return folder


@pytest.mark.parametrize("name", list(AGGREGATIONS))
def test_two_ranks_have_the_loss_and_gradient_of_one(summed: Path, name: str) -> None:
    found = torch.load(summed / f"{name}.pt", weights_only=True)
    whole = make_batch(random_families(), AGGREGATIONS[name], horizon=11, limit=40)
    expected = gradient(whole)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert expected.abs().max() > 1e-2
