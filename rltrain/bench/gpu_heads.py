"""Log-probabilities of an output head, every way that is installed, in one process on one input.

An entrant takes hidden states [N, H], weights [V, H] and targets [N] and returns
log-probabilities and entropy, both [N], differentiable. Those that have no entropy return None.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rltrain.bench.gpu_timing import Stage, attempt, timed
from rltrain_kernels.available import triton_runs_on
from rltrain_kernels.linear_logprob import fused, linear_logprob, linear_logprob_reference

Entrant = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None]]
SHAPES = {
    "Qwen3-8B": (8192, 4096, 151_936),
    "Qwen3-1.7B": (8192, 2048, 151_936),
    "Liger's table": (8192, 4096, 131_072),
}
"""N, H, V."""
TOY = {"toy": (33, 32, 300)}
ACCURACY_TOKENS = 64
TILINGS = (
    fused.HOPPER,
    fused.Tiling(block_m=256, block_n=128, block_k=64, tiles=8, tma=True, stages=4),
    fused.Tiling(block_m=256, block_n=128, block_k=64, tiles=8, tma=False),
    fused.Tiling(block_m=256, block_n=128, block_k=64, tiles=1, tma=True, group=16),
    fused.Tiling(block_m=128, block_n=256, block_k=64, tiles=4, tma=True),
    fused.Tiling(block_m=128, block_n=256, block_k=64, tiles=1, tma=True, stages=4, group=16),
    fused.Tiling(block_m=128, block_n=128, block_k=64, tma=True, stages=4, warps=4),
)


def ours(backend: str, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """This project's, by backend."""
    out = linear_logprob(hidden, weight, targets, backend=backend)
    return out.logprobs, out.entropy


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """All logits, in the compute dtype, then fp32: what a model's own forward does."""
    logp = torch.log_softmax((hidden @ weight.T).float(), -1)
    entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(1, targets[:, None])[:, 0], entropy


def trl(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """TRL's chunked head."""
    from trl.kernels import ChunkedLogProbFunction

    out = ChunkedLogProbFunction.apply(hidden, weight, None, targets, 1.0, 8192, None, 1.0,
                                       ("entropy",))  # fmt: skip
    return out[0], out[1]


def liger(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, None]:
    """Liger's fused linear cross-entropy, one loss a token; it computes no entropy."""
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    out = LigerFusedLinearCrossEntropyFunction.apply(
        hidden, weight, targets, None, None, -100, 0.0, 0.0, "none"
    )
    loss = out[0] if isinstance(out, tuple) else out
    return -loss, None


def entrants(stage: Stage) -> dict[str, Entrant]:
    """Those that may run here; what is not importable says so when it is called."""
    found: dict[str, Entrant] = {}
    if triton_runs_on(stage.device):
        found["rltrain, Triton"] = partial(ours, "triton")
    found["rltrain, torch chunks"] = partial(ours, "torch")
    found["TRL, chunked"] = trl
    found["Liger, cross-entropy"] = liger
    found["torch, all logits"] = plain
    if not stage.tiny:  # compiling takes a minute on a CPU
        found["torch.compile, all logits"] = torch.compile(plain)
    return found


def inputs(
    stage: Stage, shape: tuple[int, int, int], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Random, with logits of standard deviation 2."""
    tokens, width, vocabulary = shape
    g = torch.Generator(stage.device).manual_seed(0)
    make = partial(torch.randn, generator=g, device=stage.device, dtype=torch.float32)
    hidden = make(tokens, width).to(dtype).requires_grad_()
    weight = make(vocabulary, width).mul_(2 / width**0.5).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), generator=g, device=stage.device)
    return hidden, weight, targets


def row(
    stage: Stage, entrant: Entrant, shape: tuple[int, int, int], dtype: torch.dtype
) -> dict[str, Any]:
    """Forward, forward and backward, memory, error against fp64."""
    tokens, width, vocabulary = shape
    hidden, weight, targets = inputs(stage, shape, dtype)
    unit = 2.0 * tokens * width * vocabulary / 1e9  # GFLOP: over milliseconds TFLOP/s

    def forward() -> None:
        with torch.no_grad():
            entrant(hidden, weight, targets)

    def both() -> None:
        hidden.grad = weight.grad = None
        logprobs, entropy = entrant(hidden, weight, targets)
        loss = logprobs.sum() if entropy is None else logprobs.sum() + 0.01 * entropy.sum()
        torch.autograd.backward(loss * 2.0**8 / tokens)

    one, two = timed(stage, forward), timed(stage, both)
    found = {
        "forward ms": one["median_ms"],
        "forward TFLOP/s": unit / one["median_ms"],
        "forward+backward ms": two["median_ms"],
        "TFLOP/s (8NHV)": 4 * unit / two["median_ms"],
        "forward MiB": one.get("peak_mib"),
        "forward+backward MiB": two.get("peak_mib"),
    }
    return found | _errors(entrant, hidden, weight, targets)


def _errors(entrant: Entrant, hidden: Tensor, weight: Tensor, targets: Tensor) -> dict[str, Any]:
    some = slice(0, min(ACCURACY_TOKENS, len(hidden)))
    wide = hidden.detach()[some].double().requires_grad_()
    expected = linear_logprob_reference(wide, weight.detach().double(), targets[some])
    torch.autograd.backward(expected[0].sum())
    half = hidden.detach()[some].clone().requires_grad_()
    logprobs, entropy = entrant(half, weight, targets[some])
    torch.autograd.backward(logprobs.sum() * 2.0**8)
    assert half.grad is not None and wide.grad is not None
    cosine = torch.cosine_similarity(half.grad.double(), wide.grad, dim=1).min()
    found = (logprobs, entropy)
    errors = [
        None if f is None else float((f.detach().double() - e.detach()).abs().max())
        for f, e in zip(found, expected[:2], strict=True)
    ]
    return {
        "logp error": errors[0],
        "entropy error": errors[1],
        "1 - cos of dh": 1 - float(cosine),
    }


def tune(stage: Stage, shape: tuple[int, int, int], dtype: torch.dtype) -> list[dict[str, Any]]:
    """Ours by tiling; the fastest is used from here on."""
    rows = []
    best: tuple[float, fused.Tiling] | None = None
    for tiling in TILINGS[: stage.size(len(TILINGS), 1)]:
        fused.override = tiling if not stage.tiny else None
        found = attempt(stage, lambda: row(stage, partial(ours, "triton"), shape, dtype))
        rows.append({"tiling": str(tiling).removeprefix("Tiling"), **found})
        took = found.get("forward+backward ms")
        if took is not None and (best is None or took < best[0]):
            best = (took, tiling)
    fused.override = best[1] if best and not stage.tiny else None
    return rows


def heads(stage: Stage) -> dict[str, Any]:
    """All entrants on all shapes."""
    dtype = torch.float32 if stage.tiny and stage.device.type == "cpu" else torch.float16
    shapes = TOY if stage.tiny else SHAPES
    found: dict[str, Any] = {"rows": [], "tilings": []}
    if triton_runs_on(stage.device):
        found["tilings"] = tune(stage, next(iter(shapes.values())), dtype)
    for name, shape in shapes.items():
        for label, entrant in entrants(stage).items():
            line = {"shape": name, "N, H, V": str(shape), "dtype": str(dtype), "entrant": label}
            found["rows"].append(line | attempt(stage, partial(row, stage, entrant, shape, dtype)))
    return found
