"""The autograd function: what is saved, how chunks, dtypes and ranks are handled.

Forward folds each chunk of the vocabulary into four numbers a token. Backward computes the same
logits again, writes their gradient over one reusable buffer, and multiplies twice:

    dh += dz W        dW = dz^T h        both summed in fp32

Half-precision `dz` is stored times a power of two that brings the largest possible entry near
2^14, chosen from the upstream gradients themselves and divided out of the fp32 products. So the
gradients are the same bits under any loss scale, and no scale is needed for `dz` to keep its small
entries.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from rltrain_kernels.available import check_triton, triton_runs_on
from rltrain_kernels.linear_logprob import chunked, fused
from rltrain_kernels.linear_logprob.chunked import HALF, Rows, Upstream
from rltrain_kernels.linear_logprob.plan import Plan, default_workspace, make_plan
from rltrain_kernels.linear_logprob.stats import LN2, LOG2E, Stats, join_ranks

LARGEST_DZ = 14
"""log2 of the largest `dz` stored in half precision; fp16 ends below 2^16."""


class TokenScores(NamedTuple):
    """All [N], fp32 (fp64 for fp64 inputs), in nats, each differentiable."""

    logprobs: Tensor
    entropy: Tensor
    log_sum_exp: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is no tensor that gradients are asked for."""

    temperature: float | Tensor
    backend: Any
    """The module with `fold` and `dlogits`."""
    dtype: torch.dtype
    group: Any
    first: int
    workspace: int


class Pieces:
    """The chunks of one pass, with the operands in the compute dtype, converted chunk by chunk."""

    def __init__(self, options: Options, hidden: Tensor, weight: Tensor, bias: Tensor | None):
        self.options, self.hidden, self.weight, self.bias = options, hidden, weight, bias

    def plan(self, *, gradient: bool) -> Plan:
        """Chunks of forward, or of backward."""
        shape = (len(self.hidden), *self.weight.shape)
        convert = self.weight.dtype != self.options.dtype
        plan = make_plan(
            shape,
            self.options.workspace,
            gradient=gradient,
            element=self.options.dtype.itemsize,
            held=self.options.backend is chunked,
        )
        rows = max(256, self.options.workspace // 4 // (self.weight.shape[1] * 4))
        return Plan(tokens=plan.tokens, vocabulary=min(plan.vocabulary, rows)) if convert else plan

    def states(self, where: slice) -> Tensor:
        """Hidden states of some tokens."""
        return self.hidden[where].to(self.options.dtype).contiguous()

    def head(self, where: slice) -> tuple[Tensor, Tensor | None]:
        """Some rows of the head, and of its bias."""
        part = self.weight[where].to(self.options.dtype)
        return part, None if self.bias is None else self.bias[where]


def _slices(length: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, length)) for i in range(0, length, size)]


def _rows(hidden: Tensor, targets: Tensor, options: Options, dtype: torch.dtype) -> Rows:
    temperature = torch.as_tensor(options.temperature, dtype=dtype, device=hidden.device)
    scale = (LOG2E / temperature).expand(len(hidden)).contiguous()
    return Rows(scale, (targets - options.first).contiguous())


def _exact(device: torch.device) -> AbstractContextManager[object]:
    """No autocast: it would round the products that are to be summed in fp32."""
    return torch.autocast(device.type, enabled=False)


class _LinearLogprob(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        options: Options,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        sums = torch.promote_types(options.dtype, torch.float32)
        pieces = Pieces(options, hidden, weight, bias)
        plan = pieces.plan(gradient=False)
        rows = _rows(hidden, targets, options, sums)
        stats = Stats.empty(len(hidden), hidden, sums)
        with _exact(hidden.device):
            for some in _slices(len(hidden), plan.tokens):
                part, states = Stats(*(column[some] for column in stats)), pieces.states(some)
                for where in _slices(len(weight), plan.vocabulary):
                    head, b = pieces.head(where)
                    options.backend.fold(part, states, head, b, rows.part(some), where.start)
        if options.group is not None:
            stats = join_ranks(stats, options.group)
        log_total, entropy = stats.log_total(), stats.entropy()
        ctx.options = options
        ctx.save_for_backward(hidden, weight, bias, rows.scale, rows.target, log_total, entropy)
        return stats.logprobs(), entropy, log_total * LN2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        options: Options = ctx.options
        hidden, weight, bias, scale, target, log_total, entropy = ctx.saved_tensors
        pieces = Pieces(options, hidden, weight, bias)
        rows = Rows(scale, target)
        upstream, factor = _upstream(grads, rows, log_total, entropy, options.dtype)
        with _exact(hidden.device):
            found = _products(pieces, rows, upstream, factor, ctx.needs_input_grad[:3])
        return (*found, None, None)


def _upstream(
    grads: tuple[Tensor | None, ...],
    rows: Rows,
    log_total: Tensor,
    entropy: Tensor,
    dtype: torch.dtype,
) -> tuple[Upstream, float]:
    """Coefficients of dz, and the power of two that its products are to be multiplied with."""
    zero = torch.zeros_like(log_total)
    g_logp, g_entropy, g_lse = (zero if g is None else g.to(zero.dtype) for g in grads)
    per_logit = rows.scale * LN2  # 1 / temperature
    level = (g_lse - g_logp - g_entropy * entropy) * per_logit
    slope, hit = g_entropy * LN2 * per_logit, g_logp * per_logit
    exponent = 0
    if dtype in HALF:
        # |p (level - slope log2 p) + hit|; -p log2 p is below 0.54
        bound = float((level.abs() + 0.54 * slope.abs() + hit.abs()).amax()) if len(level) else 0.0
        if math.isfinite(bound) and bound > 0:
            exponent = LARGEST_DZ - math.frexp(bound)[1]
        exponent = max(-126, min(126, exponent))
    raised = 2.0**exponent
    return Upstream(log_total, level * raised, slope * raised, hit * raised), 1.0 / raised


def _products(
    pieces: Pieces, rows: Rows, upstream: Upstream, factor: float, asked: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden states, weights and bias; those not asked for are not computed."""
    options, hidden, weight = pieces.options, pieces.hidden, pieces.weight
    sums = torch.promote_types(options.dtype, torch.float32)
    plan = pieces.plan(gradient=True)
    of_hidden = torch.empty_like(hidden) if asked[0] else None
    of_weight = torch.zeros_like(weight, dtype=sums) if asked[1] else None
    of_bias = torch.zeros(len(weight), dtype=sums, device=weight.device) if asked[2] else None
    buffer = torch.empty(
        min(plan.tokens, len(hidden)) * plan.vocabulary, dtype=options.dtype, device=hidden.device
    )
    for some in _slices(len(hidden), plan.tokens):
        states, lines, up = pieces.states(some), rows.part(some), upstream.part(some)
        total = torch.zeros_like(states, dtype=sums) if asked[0] else None
        for where in _slices(len(weight), plan.vocabulary):
            head, b = pieces.head(where)
            dz = buffer[: len(states) * len(head)].view(len(states), len(head))
            options.backend.dlogits(dz, states, head, b, lines, up, where.start)
            if total is not None:
                fresh = where.start == 0
                chunked.add_product(total, dz, head, fresh=fresh, factor=factor)
            if of_weight is not None:
                fresh = some.start == 0
                chunked.add_product(of_weight[where], dz.T, states, fresh=fresh, factor=factor)
            if of_bias is not None:
                of_bias[where] += dz.sum(0, dtype=sums) * factor
        if total is not None and of_hidden is not None:
            if options.group is not None:
                dist.all_reduce(total, group=options.group)
            of_hidden[some] = total.to(hidden.dtype)
    assert pieces.bias is not None or of_bias is None
    return (
        of_hidden,
        None if of_weight is None else of_weight.to(weight.dtype),
        None if of_bias is None or pieces.bias is None else of_bias.to(pieces.bias.dtype),
    )


def _compute_dtype(hidden: Tensor, asked: torch.dtype | None) -> torch.dtype:
    if asked is not None:
        return asked
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    backend: str = "auto",
    **more: Any,
) -> TokenScores:
    """log p[target], entropy and log-sum-exp of softmax((hidden W^T + b) / temperature).

    Args:
        hidden: [N, H]. weight: [V, H], on several ranks this rank's rows. targets: [N], int64,
            counted over the whole vocabulary. bias: [V], finite.
        temperature: a number, or one per token [N]; no gradient.
        backend: `triton`, `torch`, or `auto`: Triton where it can run, for 16-bit and fp32 inputs.
        more: dtype: what the products take in; else autocast's, else that of `hidden`.
            group, first: the process group that shares the vocabulary, and this rank's first row;
            gradients of `hidden` are then summed over it.
            workspace: bytes for chunks; the results, and the gradient of the weights, come on top.

    Gradients have the dtype of their inputs, so fp32 weights get an fp32 gradient whatever dtype
    is computed in; a head that needs no gradient costs no product for one. Raises `ValueError` for
    shapes that do not fit, and for a backend that cannot run here.
    """
    options = _options(hidden, temperature, backend, **more)
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden [N, H] and weight [V, H] needed, got {hidden.shape} and {weight.shape}"
        )
    if targets.shape != hidden.shape[:1]:
        raise ValueError(f"targets [N] needed, got {targets.shape} for {len(hidden)} tokens")
    return TokenScores(*_LinearLogprob.apply(hidden, weight, bias, targets, options))  # type: ignore[no-untyped-call]


def _options(
    hidden: Tensor,
    temperature: float | Tensor,
    backend: str,
    *,
    dtype: torch.dtype | None = None,
    group: Any = None,
    first: int = 0,
    workspace: int | None = None,
) -> Options:
    dtype = _compute_dtype(hidden, dtype)
    if backend not in ("auto", "torch", "triton"):
        raise ValueError(f"backend is auto, torch or triton, not {backend!r}")
    if backend == "triton":
        check_triton(hidden.device)
    able = hidden.device.type == "cuda" and triton_runs_on(hidden.device)
    chosen = backend == "triton" or (backend == "auto" and able and dtype != torch.float64)
    return Options(
        temperature=temperature,
        backend=fused if chosen else chunked,
        dtype=dtype,
        group=group,
        first=first,
        workspace=workspace or default_workspace(hidden.device),
    )
