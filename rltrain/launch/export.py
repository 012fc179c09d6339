"""Export: from a checkpoint to a model or adapter that others load."""

from __future__ import annotations

import shutil
from pathlib import Path

from rltrain.errors import UserError
from rltrain.rundir import RunDir
from rltrain.train.checkpoint import latest_checkpoint, verify_checkpoint

ADAPTER_CONFIG = "adapter_config.json"


def export_run(run: RunDir, out: Path, *, merged: bool = False) -> Path:
    """Copy the newest checkpoint's policy to `out/adapter` or `out/model`, whole or not at all.

    With `merged`, a LoRA run's adapter is also folded into its base weights as `out/model`.
    Returns the folder that serves alone: the model, or the adapter of a LoRA run.

    Raises:
        UserError: if the run has no whole checkpoint.
    """
    checkpoint = latest_checkpoint(run.checkpoints)
    if checkpoint is None:
        raise UserError(f"{run.path} has no complete checkpoint to export; did the run finish?")
    try:
        verify_checkpoint(checkpoint)
    except ValueError as error:
        raise UserError(str(error)) from error
    policy = checkpoint / "policy"
    is_adapter = (policy / ADAPTER_CONFIG).is_file()
    target = _copy(policy, out / ("adapter" if is_adapter else "model"))
    if merged and is_adapter:
        return merge(policy, out / "model")
    return target


def _copy(source: Path, target: Path) -> Path:
    work = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)
    return target


def merge(adapter: Path, target: Path) -> Path:
    """Fold an adapter into its base model's weights and save the result with its tokenizer."""
    import torch
    from peft import AutoPeftModelForCausalLM
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    try:
        model = AutoPeftModelForCausalLM.from_pretrained(str(adapter), dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        named = next((line for line in lines if "size mismatch" in line), (lines or ["unknown"])[0])
        raise UserError(
            f"the adapter {adapter} does not fit its base model (adapter_config.json says which): "
            f"{named.rstrip('.')}; put that model back where it was, or export without --merged"
        ) from error
    work = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    model.merge_and_unload().save_pretrained(work)
    AutoTokenizer.from_pretrained(str(adapter)).save_pretrained(work)
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)
    return target
