"""The fused policy loss against the library's functions, one operation after another."""

from __future__ import annotations

from typing import Any

import torch

from rltrain.bench.gpu_timing import Stage, timed
from rltrain_kernels.available import triton_runs_on
from rltrain_kernels.policy_loss import PolicyLoss, Tokens, policy_loss

SPEC = PolicyLoss(kind="cispo", clip_high=5.0, tis_cap=2.0, kl_coef=0.01, tokens=1_000_000)


def epilogue(stage: Stage) -> dict[str, Any]:
    """Forward and backward over a step's tokens, by backend."""
    count = stage.size(1 << 20, 100)
    columns = -torch.rand(8, count, device=stage.device)
    new = columns[0].clone().requires_grad_()
    batch = Tokens(
        new=new, old=columns[1], trainer=columns[2], behaviour=columns[3],
        advantages=columns[4], weights=columns[5], entropy=columns[6], reference=columns[7],
    )  # fmt: skip
    rows = []
    for backend in ["triton", "torch"] if triton_runs_on(stage.device) else ["torch"]:

        def call(backend: str = backend) -> None:
            new.grad = None
            torch.autograd.backward(policy_loss(batch, SPEC, backend=backend).loss * 1024)

        rows.append({"backend": backend, "tokens": count, **timed(stage, call, 1.0)})
    return {"rows": rows}
