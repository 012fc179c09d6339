"""Which tensors of the learner are sent, under the names that a checkpoint would give them."""

from __future__ import annotations

from typing import Any, cast

import torch


def unwrap(model: torch.nn.Module) -> Any:
    """The model under DistributedDataParallel, DeepSpeed and torch.compile wrappers."""
    inner: Any = model
    while True:
        wrapped = getattr(inner, "_orig_mod", None)
        if wrapped is None and type(inner).__module__.startswith(
            ("torch.nn.parallel", "deepspeed")
        ):
            wrapped = inner.module
        if wrapped is None:
            return inner
        inner = wrapped


def full_tensors(model: torch.nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every parameter and persistent buffer, on the CPU, contiguous; floating ones in `dtype`.

    Of tied tensors only the first name is kept, as in a checkpoint. Sharded models (ZeRO-3, FSDP)
    must be gathered by the caller."""
    out: dict[str, torch.Tensor] = {}
    seen: set[tuple[int, torch.Size, tuple[int, ...]]] = set()
    for name, tensor in unwrap(model).state_dict().items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        out[name] = engine_tensor(tensor, dtype)
    return out


def adapter_tensors(
    model: torch.nn.Module, dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The active LoRA adapter's tensors in PEFT's file naming, and its `adapter_config.json`."""
    from peft import PeftModel, get_peft_model_state_dict

    peft = cast(PeftModel, unwrap(model))
    state = get_peft_model_state_dict(peft)
    config = peft.peft_config[peft.active_adapter].to_dict()
    plain = {key: _plain(value) for key, value in config.items()}
    return {name: engine_tensor(tensor, dtype) for name, tensor in state.items()}, plain


def engine_tensor(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor as the engine will hold it: detached, CPU, contiguous, cast if floating."""
    wanted = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", wanted).contiguous()


def _plain(value: Any) -> Any:
    if isinstance(value, set | tuple | frozenset):
        return sorted(value) if isinstance(value, set | frozenset) else list(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | list | None) else str(value)
