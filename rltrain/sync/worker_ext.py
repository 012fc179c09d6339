"""The half of weight sync that runs inside vLLM's worker process.

vLLM mixes `WorkerExtension` into its worker class (`--worker-extension-cls`), so `self` is that
worker. `rltrain_stage` reads tensors and answers with their digests; nothing is changed yet, and
requests go on. `rltrain_commit` loads exactly those tensors. Written against vLLM 0.32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rltrain.sync.digest import digests

TENSORS = "adapter_model.safetensors"  # the name that vLLM wants for an adapter; used for both
ADAPTER_CONFIG = "adapter_config.json"


class WorkerExtension:
    """Methods for `collective_rpc`; all names carry a prefix, vLLM rejects a clash."""

    _rltrain_staged: tuple[dict[str, torch.Tensor], dict[str, Any] | None] | None = None

    def rltrain_stage(self, folder: str) -> dict[str, Any]:
        """Read the tensors in `folder` and hold them: `{"digests": {name: hex}}`."""
        tensors = load_file(Path(folder) / TENSORS)
        config = Path(folder) / ADAPTER_CONFIG
        adapter = json.loads(config.read_text()) if config.exists() else None
        self._rltrain_staged = (tensors, adapter)
        return {"digests": digests(tensors)}

    def rltrain_drop(self) -> None:
        """Forget what was staged."""
        self._rltrain_staged = None

    def rltrain_dtypes(self) -> dict[str, str]:
        """What each layer is computed in."""
        return module_dtypes(self)

    def rltrain_commit(self) -> dict[str, Any]:
        """Load what was staged: `{"missing": [parameters that got no value]}`."""
        if self._rltrain_staged is None:
            raise RuntimeError("nothing is staged")
        tensors, adapter = self._rltrain_staged
        self._rltrain_staged = None
        if adapter is None:
            return {"missing": _load_weights(self, tensors)}
        _load_adapter(self, tensors, adapter)
        return {"missing": []}


def module_dtypes(worker: Any) -> dict[str, str]:
    """What each matrix product is computed in, by the names of a checkpoint: fused layers are taken
    apart. A quantized layer has the name of its method in place of a dtype."""
    model = worker.model_runner.get_model()
    config = worker.vllm_config
    packed: dict[str, list[str]] = getattr(model, "packed_modules_mapping", {})
    found = {"model": str(config.model_config.dtype)}
    for name, module in model.named_modules():
        layer, _, last = name.replace(".base_layer", "").rpartition(".")
        method = type(getattr(module, "quant_method", None)).__name__
        if type(module).__name__ == "LogitsProcessor":
            found["lm_head"] = str(module.head_dtype or config.model_config.dtype)
        elif method.endswith("LinearMethod"):
            plain = method.startswith("Unquantized")
            weight = getattr(module, "weight", None)
            dtype = str(module.params_dtype if weight is None else weight.dtype)
            for part in packed.get(last, [last]):
                found[f"{layer}.{part}"] = dtype if plain else method
    cache = config.cache_config.cache_dtype
    found["key-value cache"] = found["model"] if cache == "auto" else str(cache)
    if config.lora_config is not None:
        found["adapter"] = str(config.lora_config.lora_dtype)
    return {name: dtype.removeprefix("torch.") for name, dtype in found.items()}


def _load_weights(worker: Any, tensors: dict[str, torch.Tensor]) -> list[str]:
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader import reload

    runner = worker.model_runner
    model = runner.get_model()
    with set_current_vllm_config(worker.vllm_config):
        # Before the reload is initialized: it splits tied parameters, which then look missing.
        expected = {name.replace(".base_layer.", ".") for name, _ in model.named_parameters()}
        reload.initialize_layerwise_reload(model)
        try:
            loaded = model.load_weights(iter(tensors.items()))
        finally:
            finish: Any = reload.finalize_layerwise_reload
            finish(model, runner.model_config)
        _refresh_tied_head(model)
        runner.reset_lora_state()
    return sorted(expected - set(loaded or expected))


def _refresh_tied_head(model: torch.nn.Module) -> None:
    """vLLM 0.32 on the CPU leaves a tied output head on its old packed copy after any reload."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding) and hasattr(module, "cpu_linear"):
            dispatch_cpu_unquantized_gemm(module, remove_weight=False)


def _load_adapter(worker: Any, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    # Not `load_inplace` over HTTP: the server keeps that flag in the adapter's entry, and the
    # worker would then read the files again at every step.
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper

    manager = worker.model_runner.lora_manager
    adapters = manager._adapter_manager
    known = sorted(manager.list_adapters())
    if len(known) != 1:
        raise RuntimeError(f"expected one registered adapter, found {known}")
    helper = PEFTHelper.from_dict(config)
    helper.validate_legal(manager.lora_config)
    mapper = getattr(adapters.model, "hf_to_vllm_mapper", None)
    adapter = LoRAModel.from_lora_tensors(
        known[0],
        tensors,
        helper,
        device="cpu",
        dtype=manager.lora_config.lora_dtype,
        model_vocab_size=manager.vocab_size,
        weights_mapper=None if mapper is None else mapper.get_rename_mapper(),
    )
    adapters.remove_adapter(adapter.id)
    adapters.add_adapter(adapter)
    adapters.activate_adapter(adapter.id)
