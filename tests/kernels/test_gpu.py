"""On a GPU: accuracy, memory and invariance at the size of a real model's output head."""

from __future__ import annotations

import pytest
import torch

from rltrain_kernels.linear_logprob import linear_logprob, linear_logprob_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here"),
]
TOKENS, WIDTH, VOCABULARY = 1000, 1024, 151_936
BUDGET = 512 << 20


def head(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, weights, targets; logits with a standard deviation of 2."""
    g = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, generator=g, device="cuda").to(dtype)
    weight = (torch.randn(VOCABULARY, WIDTH, generator=g, device="cuda") * 2 / WIDTH**0.5).to(dtype)
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=g, device="cuda")
    return hidden.requires_grad_(), weight.requires_grad_(), targets


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_real_head_agrees_with_fp64(dtype: torch.dtype, backend: str) -> None:
    hidden, weight, targets = head(dtype)
    out = linear_logprob(hidden, weight, targets, temperature=0.8, backend=backend)
    (out.logprobs.sum() + 0.1 * out.entropy.sum()).backward()
    some = slice(0, 64)  # fp64 logits of all tokens would take 1.2 GB several times
    wide = hidden.detach()[some].double().requires_grad_()
    expected = linear_logprob_reference(wide, weight.detach().double(), targets[some],
                                        temperature=0.8)  # fmt: skip
    (expected[0].sum() + 0.1 * expected[1].sum()).backward()
    assert hidden.grad is not None and wide.grad is not None
    for found, value in zip(out, expected, strict=True):
        assert float((found[some].double() - value).abs().max()) <= 1e-5
    cosine = torch.cosine_similarity(hidden.grad[some].double(), wide.grad, dim=1)
    assert float(cosine.min()) >= 0.9999


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_workspace_stays_in_its_budget(backend: str) -> None:
    hidden, weight, targets = head(torch.float16)
    weight.requires_grad_(False)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    linear_logprob(hidden, weight, targets, backend=backend).logprobs.sum().backward()
    assert torch.cuda.max_memory_allocated() - before <= BUDGET


def test_forward_and_recomputed_logits_are_the_same_bits() -> None:
    """On policy the ratio is exactly 1, whatever else is in the micro-batch."""
    hidden, weight, targets = head(torch.float16)
    with torch.no_grad():
        whole = linear_logprob(hidden, weight, targets, backend="triton").logprobs
        part = linear_logprob(hidden[137:500], weight, targets[137:500], backend="triton").logprobs
    assert torch.equal(part, whole[137:500])


def test_gradients_are_the_same_bits_under_loss_scales() -> None:
    hidden, weight, targets = head(torch.float16)
    found = []
    for power in (0, 16):
        held = hidden.detach().float().requires_grad_()
        out = linear_logprob(held, weight.detach(), targets, dtype=torch.float16)
        (out.logprobs.sum() * 1e-6 * 2.0**power).backward()
        assert held.grad is not None
        found.append(held.grad / 2.0**power)
    assert torch.equal(*found)
