"""Log-probabilities, entropies and all gradients of the chunked output head, against the plain one.

Under Triton's interpreter (TRITON_INTERPRET=1, set in a process of its own by the last test here)
the same tests run the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rltrain_kernels.available import INTERPRETED, triton_runs_on
from rltrain_kernels.linear_logprob import fused, linear_logprob, linear_logprob_reference

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKENDS = ["torch", *(["triton"] if triton_runs_on(DEVICE) else [])]
# odd in every direction, and around the size of a block
SHAPES = [(1, 5, 3), (7, 33, 17), (19, 65, 40)]
TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def case(
    shape: tuple[int, int, int], dtype: torch.dtype, *, bias: bool = True, seed: int = 0
) -> dict[str, Any]:
    """Inputs in `dtype`, of logits that are neither flat nor certain."""
    tokens, vocabulary, width = shape
    g = torch.Generator().manual_seed(seed)
    made = {
        "hidden": torch.randn(tokens, width, generator=g),
        "weight": torch.randn(vocabulary, width, generator=g) * 1.5 / width**0.5,
        "bias": torch.randn(vocabulary, generator=g) if bias else None,
    }
    inputs = {k: v.to(DEVICE, dtype).requires_grad_() for k, v in made.items() if v is not None}
    inputs["targets"] = torch.randint(vocabulary, (tokens,), generator=g).to(DEVICE)
    inputs["temperature"] = (torch.rand(tokens, generator=g) + 0.5).to(DEVICE)
    return inputs


def scored(function: Callable[..., Any], inputs: dict[str, Any], **more: Any) -> dict[str, Tensor]:
    """Outputs and gradients of a sum that weighs every token and every output differently."""
    inputs = {
        k: v.detach().requires_grad_(v.requires_grad) if isinstance(v, Tensor) else v
        for k, v in inputs.items()
    }
    outputs = function(**inputs, **more)
    g = torch.Generator().manual_seed(1)
    mixed = [torch.randn(len(o), generator=g).to(o) @ o for o in outputs]
    sum(mixed).backward()
    names = ("logprobs", "entropy", "log_sum_exp")
    found = dict(zip(names, (o.detach() for o in outputs), strict=True))
    return found | {f"d_{k}": inputs[k].grad for k in ("hidden", "weight", "bias") if k in inputs}


def reference_of(inputs: dict[str, Any]) -> dict[str, Tensor]:
    """In fp64, from the rounded inputs."""
    wide = {
        k: v.detach().double().requires_grad_(v.requires_grad) if v.is_floating_point() else v
        for k, v in inputs.items()
    }
    return scored(linear_logprob_reference, wide)


def close(found: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Outputs to 2e-6 in every dtype, since sums are fp32; gradients to the dtype's rounding."""
    for key, value in expected.items():
        scale = max(1.0, float(value.abs().max()))
        limit = TOLERANCE[dtype] if key.startswith("d_") else 3e-6
        worst = float((found[key].double() - value).abs().max()) / scale
        assert worst <= limit, (key, worst)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients_equal_the_reference(
    shape: tuple[int, int, int], dtype: torch.dtype, backend: str
) -> None:
    inputs = case(shape, dtype)
    found = scored(linear_logprob, inputs, backend=backend)
    close(found, reference_of(inputs), dtype)
    for key in ("hidden", "weight", "bias"):
        assert found[f"d_{key}"].dtype == dtype


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_chunks_equal_one(backend: str) -> None:
    inputs = case((19, 700, 24), torch.float32)
    one = scored(linear_logprob, inputs, backend=backend)
    many = scored(linear_logprob, inputs, backend=backend, workspace=40_000)
    for key, value in one.items():
        torch.testing.assert_close(many[key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_are_the_same_bits_under_every_loss_scale(
    dtype: torch.dtype, backend: str
) -> None:
    """A loss of 1e-6 a token, whose dz would vanish in fp16 unless it is scaled before it is
    rounded. fp32 inputs computed in half precision show the products before their last rounding."""
    inputs = case((7, 33, 16), torch.float32)

    def gradients(scale: float) -> list[Tensor]:
        held = {k: v.detach().requires_grad_(v.requires_grad) for k, v in inputs.items()}
        out = linear_logprob(**held, dtype=dtype, backend=backend)
        ((out.logprobs.sum() + 0.1 * out.entropy.sum()) * 1e-6 * scale).backward()
        return [held[k].grad / scale for k in ("hidden", "weight", "bias")]

    plain = gradients(1.0)
    assert all(float(g.abs().max()) > 0 for g in plain)
    for power in (4, 10, 16):
        for at_scale, at_one in zip(gradients(2.0**power), plain, strict=True):
            assert torch.equal(at_scale, at_one)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_confident_token_keeps_its_digits(backend: str) -> None:
    """One logit 40 nats above the others: entropy is 3e-16, not the rounding of 40."""
    hidden, weight = torch.eye(1, 4, device=DEVICE) * 40, torch.eye(6, 4, device=DEVICE)
    out = linear_logprob(hidden, weight, torch.zeros(1, dtype=torch.long, device=DEVICE),
                         backend=backend)  # fmt: skip
    assert 0 <= float(out.entropy) < 1e-13
    assert float(out.logprobs) == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tokens_result_does_not_depend_on_the_others(backend: str) -> None:
    if backend == "torch":
        pytest.skip("torch's products may sum in another order for another number of rows")
    inputs = case((19, 65, 40), torch.float16)
    whole = linear_logprob(**inputs, backend=backend)
    for some in (slice(0, 1), slice(3, 19)):
        part = {k: v[some] if k in ("hidden", "targets", "temperature") else v
                for k, v in inputs.items()}  # fmt: skip
        for of_part, of_whole in zip(linear_logprob(**part, backend=backend), whole, strict=True):
            assert torch.equal(of_part, of_whole[some])


@pytest.mark.skipif("triton" not in BACKENDS, reason="tilings are Triton's")
def test_tiles_fetched_by_tma_triton_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hopper's copy engine against pointers, with blocks that reach over every edge."""
    inputs = case((19, 65, 40), torch.float16)
    tiling = fused.Tiling(block_m=16, block_n=32, block_k=16, group=2, tiles=2)
    found = []
    for tma in (False, True):
        monkeypatch.setattr(fused, "override", replace(tiling, tma=tma))
        assert fused.tiling_for(inputs["hidden"], inputs["weight"]).tma == tma
        found.append(scored(linear_logprob, inputs, backend="triton"))
    for key, value in found[0].items():
        assert torch.equal(found[1][key], value), key
    odd = case((19, 65, 41), torch.float16)  # rows that are no multiple of 16 bytes
    assert not fused.tiling_for(odd["hidden"], odd["weight"]).tma


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frozen_head_gets_no_gradient_and_the_states_the_same(backend: str) -> None:
    inputs = case((7, 33, 17), torch.float32, bias=False)
    whole = scored(linear_logprob, inputs, backend=backend)
    inputs["weight"].requires_grad_(False)
    frozen = scored(linear_logprob, inputs, backend=backend)
    assert frozen["d_weight"] is None
    assert torch.equal(frozen["d_hidden"], whole["d_hidden"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_tied_weights_and_an_adapter_below_get_their_gradients(backend: str) -> None:
    """The head's matrix is the embedding too, and a low-rank adapter feeds the states."""
    g = torch.Generator().manual_seed(0)
    ids = torch.tensor([3, 1, 4, 1, 5]).to(DEVICE)
    drawn = [torch.randn(s, generator=g).to(DEVICE) for s in ((33, 16), (16, 2), (2, 16))]

    def gradients(score: Callable[..., Any], **more: Any) -> list[Tensor]:
        table, down, up = (x.detach().clone().requires_grad_() for x in drawn)
        states = table[ids] + table[ids] @ down @ up
        logprobs, entropy, _ = score(states, table, ids.flip(0), **more)
        (logprobs.sum() + 0.3 * entropy.sum()).backward()
        return [x.grad for x in (table, down, up)]

    expected = gradients(linear_logprob_reference)
    for found, value in zip(gradients(linear_logprob, backend=backend), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fp32_weights_under_autocast_get_an_fp32_gradient(backend: str) -> None:
    """As in the learner: parameters in fp32, products in bf16."""
    inputs = case((7, 33, 16), torch.float32)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        found = scored(linear_logprob, inputs, backend=backend)
    rounded = {
        k: v.detach().bfloat16().float().requires_grad_() if k in ("hidden", "weight") else v
        for k, v in inputs.items()
    }
    expected = reference_of(rounded)
    assert found["d_weight"].dtype == torch.float32
    for key in ("logprobs", "entropy"):
        torch.testing.assert_close(found[key].double(), expected[key], rtol=0, atol=3e-6)
    cosine = torch.cosine_similarity(found["d_weight"].double().flatten(),
                                     expected["d_weight"].flatten(), dim=0)  # fmt: skip
    assert float(cosine) > 0.9999


def test_derivatives_of_reference_and_chunks_are_those_of_finite_differences() -> None:
    inputs = case((4, 9, 5), torch.float64)
    targets, temperature = inputs["targets"], inputs["temperature"]
    tensors = [inputs[k] for k in ("hidden", "weight", "bias")]

    def chunks(h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return tuple(linear_logprob(h, w, targets, b, temperature=temperature))

    def plain(h: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return linear_logprob_reference(h, w, targets, b, temperature)

    assert torch.autograd.gradcheck(chunks, tensors)
    assert torch.autograd.gradcheck(plain, tensors)


def test_no_tokens_are_no_error() -> None:
    hidden = torch.zeros(0, 4, requires_grad=True)
    out = linear_logprob(hidden, torch.ones(5, 4), torch.zeros(0, dtype=torch.long))
    out.logprobs.sum().backward()
    assert out.entropy.shape == (0,)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match=r"targets \[N\]"):
        linear_logprob(torch.ones(2, 4), torch.ones(5, 4), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="auto, torch or triton"):
        linear_logprob(torch.ones(2, 4), torch.ones(5, 4), torch.zeros(2).long(), backend="cuda")
    if not INTERPRETED and DEVICE.type == "cpu":
        with pytest.raises(ValueError, match="needs Triton and a GPU"):
            linear_logprob(torch.ones(2, 4), torch.ones(5, 4), torch.zeros(2).long(),
                           backend="triton")  # fmt: skip
