"""Samples -> Batch: rows of tokens with a mask that says who may look at whom.

`shared_prefix` puts all siblings of a group behind one copy of their common prompt:

    row       p p p p | a a a | b b b b        position   0 1 2 3 | 4 5 6 | 4 5 6 7
    attends   prompt and own branch only       family of two siblings a and b

so the prompt is computed once instead of G times. `padded` gives each sample its own row and is the
plain oracle: both give the same log-probabilities and gradients.

Only tokens that the policy sampled and whose behaviour log-probability is finite are trained; the
step's denominators count exactly those, over all ranks. Sequences whose advantage is zero (a group
without spread) stay in the denominators but are not computed: their gradient is exactly zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from rltrain.algo.aggregation import Aggregation
from rltrain.types import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """One forward pass: R rows of L tokens, N trained tokens of S sequences."""

    ids: Tensor
    """[R, L] int64."""
    positions: Tensor
    """[R, L] int64."""
    mask: Tensor
    """Bool: [R, 1, L, L] who attends to whom, or [R, L] which tokens are real (causal)."""
    source: Tensor
    """[N] flat index into R*L of the position that predicts each trained token."""
    targets: Tensor
    """[N] int64, the trained tokens."""
    behaviour: Tensor
    """[N] float32, their log-probability (nats) when sampled."""
    advantages: Tensor
    """[N] float32."""
    weights: Tensor
    """[N] float32; the step's loss is sum_n weights_n * loss_n over all micro-batches and ranks."""
    seq: Tensor
    """[N] int64, 0..S-1."""
    sequences: int
    versions: Tensor
    """[N] int64, the policy version that sampled each token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One optimizer step on this rank, and the counts over all ranks."""

    micro_batches: tuple[MicroBatch, ...]
    tokens: int
    """Trained tokens over all ranks."""
    sequences: int
    """Trained sequences over all ranks."""
    dropped_tokens: int
    """Sampled tokens left out because their behaviour log-probability was not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    samples: tuple[Sample, ...]
    prefix: int

    @property
    def length(self) -> int:
        return self.prefix + sum(len(s.ids) - self.prefix for s in self.samples)


def trained(sample: Sample) -> list[int]:
    """Positions of a sample whose token is trained. Position 0 has nothing that predicts it."""
    return [
        t
        for t, (mask, logprob) in enumerate(zip(sample.loss_mask, sample.logprobs, strict=True))
        if mask and t > 0 and math.isfinite(logprob)
    ]


def _rows(samples: Sequence[Sample], shared_prefix: bool, limit: int) -> list[_Row]:
    if not shared_prefix:
        return [_Row(samples=(s,), prefix=0) for s in samples]
    rows: list[_Row] = []
    for _, family in groupby(samples, key=lambda s: s.family):
        members = list(family)
        prefix = members[0].prefix
        if any((m.prefix, m.ids[:prefix]) != (prefix, members[0].ids[:prefix]) for m in members):
            raise ValueError("siblings of one family must share their prefix token for token")
        row: list[Sample] = []
        for member in members:
            if row and _Row(samples=(*row, member), prefix=prefix).length > limit:
                rows.append(_Row(samples=tuple(row), prefix=prefix))
                row = []
            row.append(member)
        rows.append(_Row(samples=tuple(row), prefix=prefix))
    return rows


def _split(rows: list[_Row], limit: int) -> list[list[_Row]]:
    """Rows of similar length together, padded size at most `limit` (a longer row stands alone)."""
    parts: list[list[_Row]] = []
    for row in sorted(rows, key=lambda r: r.length):
        if parts and row.length * (len(parts[-1]) + 1) <= limit:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def _lay_out(row: _Row, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids [L], positions [L] and mask [L, L] of one row; padding attends to itself only, because a
    token that attends to nothing is a NaN."""
    prefix = row.prefix
    ids = list(row.samples[0].ids[:prefix])
    positions = list(range(prefix))
    branch = [0] * prefix
    for number, sample in enumerate(row.samples, start=1):
        tail = sample.ids[prefix:]
        ids += tail
        positions += range(prefix, prefix + len(tail))
        branch += [number] * len(tail)
    pad = width - len(ids)
    of = torch.tensor(branch + [-1] * pad)
    mask = ((of[:, None] == of[None, :]) | (of[None, :] == 0)).tril()
    mask[len(ids) :] = False
    mask.fill_diagonal_(True)
    return (
        torch.tensor(ids + [0] * pad),
        torch.tensor(positions + [0] * pad),
        mask,
    )


def _micro_batch(
    rows: Sequence[_Row], weigh: Callable[[list[int]], list[float]], shared: bool
) -> MicroBatch:
    width = max(row.length for row in rows)
    laid = [_lay_out(row, width) for row in rows]
    source: list[int] = []
    targets: list[int] = []
    behaviour: list[float] = []
    advantages: list[float] = []
    versions: list[int] = []
    lengths: list[int] = []
    for number, row in enumerate(rows):
        offset = number * width + row.prefix
        for sample in row.samples:
            kept = trained(sample)
            for t in kept:
                first = t == row.prefix and row.prefix > 0
                start = number * width if first else offset - row.prefix
                source.append(start + t - 1)
                targets.append(sample.ids[t])
                behaviour.append(sample.logprobs[t])
                advantages.append(sample.advantages[t])
                versions.append(sample.versions[t] if sample.versions else sample.version)
            lengths.append(len(kept))
            offset += len(sample.ids) - row.prefix
    weights = torch.tensor(weigh(lengths), dtype=torch.float32)
    counts = torch.tensor(lengths)
    if shared:
        mask = torch.stack([m for _, _, m in laid])[:, None]
    else:
        mask = torch.tensor([[t < row.length for t in range(width)] for row in rows])
    return MicroBatch(
        ids=torch.stack([i for i, _, _ in laid]),
        positions=torch.stack([p for _, p, _ in laid]),
        mask=mask,
        source=torch.tensor(source),
        targets=torch.tensor(targets),
        behaviour=torch.tensor(behaviour, dtype=torch.float32),
        advantages=torch.tensor(advantages, dtype=torch.float32),
        weights=weights.repeat_interleave(counts),
        seq=torch.arange(len(lengths)).repeat_interleave(counts),
        sequences=len(lengths),
        versions=torch.tensor(versions),
    )


def make_batch(
    samples: Sequence[Sample],
    aggregate: Aggregation,
    *,
    horizon: int,
    shared_prefix: bool = True,
    limit: int = 16_384,
    compute_all: bool = False,
    world: Callable[[int, int], tuple[int, int]] = lambda tokens, sequences: (tokens, sequences),
) -> Batch:
    """Pack a step's samples. `horizon` is the token budget of an answer; `limit` the padded tokens
    of one forward pass; `world` sums (tokens, sequences) over ranks before anything is divided.
    `compute_all` computes sequences without advantage too: for what learns from them all the same
    (a critic, to which reward 0 is information, or a KL penalty)."""
    usable = [s for s in samples if trained(s)]
    counts = [len(trained(s)) for s in usable]
    tokens, sequences = world(sum(counts), len(usable))

    def weigh(lengths: list[int]) -> list[float]:
        return aggregate(lengths, tokens, sequences, horizon)

    # Counted above, but not computed: a sequence without advantage has no gradient.
    moving = [s for s in usable if compute_all or any(s.advantages)]
    parts = _split(_rows(moving, shared_prefix, limit), limit) if moving else []
    sampled = sum(sum(s.loss_mask) for s in samples)
    return Batch(
        micro_batches=tuple(_micro_batch(part, weigh, shared_prefix) for part in parts),
        tokens=tokens,
        sequences=sequences,
        dropped_tokens=sampled - sum(counts),
    )
