"""What a call holds at once does not grow with the vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from rltrain_kernels.linear_logprob import linear_logprob, linear_logprob_reference

TOKENS, WIDTH, BUDGET = 96, 8, 1 << 19


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes that were allocated and not yet freed while it ran, from torch's own records."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        kept = call()
    assert kept is not None
    records = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for record in sorted(records, key=lambda e: e.start_ns()):
        held += record.nbytes()
        peak = max(peak, held)
    return peak


def passes(vocabulary: int, *, chunked: bool) -> Callable[[], object]:
    """Forward and backward of a frozen head, whose own gradient would be [V, H]."""
    hidden = torch.randn(TOKENS, WIDTH, requires_grad=True)
    weight = torch.randn(vocabulary, WIDTH)
    targets = torch.randint(vocabulary, (TOKENS,))

    def call() -> object:
        if chunked:
            outputs = linear_logprob(hidden, weight, targets, workspace=BUDGET)
        else:
            outputs = linear_logprob_reference(hidden, weight, targets)
        (outputs[0].sum() + outputs[1].sum()).backward()
        return outputs

    return call


def test_peak_memory_is_flat_in_the_vocabulary() -> None:
    small, large = (peak_bytes(passes(v, chunked=True)) for v in (4_000, 64_000))
    assert large <= 1.1 * small
    assert large <= 1.5 * BUDGET
    logits = TOKENS * 64_000 * 4
    assert peak_bytes(passes(64_000, chunked=False)) > 2 * logits > 40 * BUDGET


def test_a_trained_head_adds_its_gradient_and_nothing_else() -> None:
    hidden, targets = torch.randn(TOKENS, WIDTH), torch.randint(64_000, (TOKENS,))
    weight = torch.randn(64_000, WIDTH, requires_grad=True)

    def call() -> object:
        outputs = linear_logprob(hidden, weight, targets, workspace=BUDGET)
        outputs.logprobs.sum().backward()
        return outputs

    assert peak_bytes(call) <= weight.numel() * 4 + 1.5 * BUDGET
