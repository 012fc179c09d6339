"""Two processes with half of the vocabulary each, over gloo, are one process with all of it."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from rltrain_kernels.linear_logprob import linear_logprob

VOCABULARY, SPLIT, RANKS = 37, 20, 2


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weights, bias, targets: targets of both ranks, the border's among them."""
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(6, 12, generator=g), torch.randn(VOCABULARY, 12, generator=g)
    targets = torch.tensor([0, 19, 20, 36, 5, 30])
    return hidden, weight, torch.randn(VOCABULARY, generator=g), targets


def everything(first: int, last: int, group: object) -> dict[str, Tensor]:
    """Outputs and gradients with these rows of the head."""
    hidden, weight, bias, targets = inputs()
    leaves = [hidden, weight[first:last].clone(), bias[first:last].clone()]
    for leaf in leaves:
        leaf.requires_grad_()
    out = linear_logprob(
        leaves[0], leaves[1], targets, leaves[2], temperature=0.7, group=group, first=first
    )
    (out.logprobs @ torch.arange(1.0, 7.0) + out.entropy.sum() + out.log_sum_exp.sum()).backward()
    grads = {k: x.grad for k, x in zip(("hidden", "weight", "bias"), leaves, strict=True)}
    return {**{k: v.detach() for k, v in out._asdict().items()}, **grads}


def rank_main(rank: int, folder: str) -> None:
    """One rank; what it finds is written to a file."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    found = everything(*((0, SPLIT), (SPLIT, VOCABULARY))[rank], dist.group.WORLD)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    mp.start_processes(rank_main, (str(tmp_path),), nprocs=RANKS, start_method="fork")
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    whole = everything(0, VOCABULARY, None)
    for key, value in whole.items():
        if key in ("weight", "bias"):
            found = torch.cat([rank[key] for rank in ranks])
            torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)
        else:
            for rank in ranks:  # every rank holds the whole result, and the whole gradient
                torch.testing.assert_close(rank[key], value, rtol=1e-5, atol=1e-5)
