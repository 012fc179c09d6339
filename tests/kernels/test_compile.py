"""The kernels compile for Hopper, on a machine without a GPU, to its matrix instructions."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from rltrain_kernels.available import HAS_TRITON, INTERPRETED
from rltrain_kernels.linear_logprob import fused

pytestmark = [
    pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed (make setup)"),
    pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing"),
]
SHARED_MEMORY = 227 * 1024
INTEGERS = {"first", "N", "V", "H", "stride_h", "stride_w", "stride_out"}


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any], **options: int) -> Any:
    """Machine code for compute capability 9.0. What has no type named is a pointer to fp32."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    signature = {
        name: "constexpr" if name in constants else types.get(name, "*fp32")
        for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    return compile(source, target=GPUTarget("cuda", 90, 32), options=options)


@pytest.mark.parametrize("name", ["fold_kernel", "dlogits_kernel"])
def test_the_head_compiles_to_hoppers_matrix_products_and_copies(name: str) -> None:
    kernels = importlib.import_module("rltrain_kernels.linear_logprob.triton_kernels")
    m, n, k = fused.HOPPER.block_m, fused.HOPPER.block_n, fused.HOPPER.block_k
    types = {
        **dict.fromkeys(INTEGERS, "i32"), "target": "*i64", "bias": "*fp16", "out": "*fp16",
        "hidden": f"tensordesc<fp16[{m}, {k}]>", "weight": f"tensordesc<fp16[{n}, {k}]>",
    }  # fmt: skip
    constants = {
        "HAS_BIAS": False, "BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "GROUP": fused.HOPPER.group,
        "TILES": fused.HOPPER.tiles, "TMA": True, "WIDEN": False,
    }  # fmt: skip
    found = compiled(getattr(kernels, name), types, constants,
                     num_warps=fused.HOPPER.warps, num_stages=fused.HOPPER.stages)  # fmt: skip
    assert "wgmma.mma_async" in found.asm["ptx"]
    assert "cp.async.bulk.tensor" in found.asm["ptx"]
    assert found.metadata.shared <= SHARED_MEMORY


def test_the_policy_loss_compiles() -> None:
    kernels = importlib.import_module("rltrain_kernels.policy_loss.kernel")
    numbers = ("clip_low", "clip_high", "tis_cap", "kl_coef", "entropy_share")
    constants = {"CISPO": True, "TIS": True, "REFERENCE": True, "BLOCK": 1024}
    found = compiled(kernels.policy_loss_kernel, {"N": "i32", **dict.fromkeys(numbers, "fp32")},
                     constants, num_warps=4)  # fmt: skip
    assert len(found.asm["cubin"]) > 0
