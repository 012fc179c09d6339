"""Which policy is trained: one built here from scratch, or one from a hub or a folder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from rltrain.config.base import Section


class WarmupConfig(Section):
    """The short supervised warm-up that gives a from-scratch policy something to reinforce."""

    examples: PositiveInt = 2_000
    """Demonstrations, gone through again and again: as few as a product team would have written."""
    steps: PositiveInt = 600
    """Optimizer steps."""
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 2e-3
    noise: float = Field(default=0.2, ge=0, le=1)
    """Share of demonstrations that are bad ones, as real logs contain them."""
    seed: int = 0
    threads: PositiveInt = 1
    """CPU threads of the build."""


class TinyModelConfig(Section):
    """A small standard transformer (Qwen3 architecture) built and warmed up on this machine."""

    source: Literal["tiny"] = "tiny"
    hidden_size: PositiveInt = 192
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    kv_heads: PositiveInt = 2
    intermediate_size: PositiveInt = 512
    vocab_size: PositiveInt = 1024
    """Byte-level BPE, trained on the environment's own text."""
    max_length: PositiveInt = 256
    """Tokens of prompt and completion together."""
    warmup: WarmupConfig = WarmupConfig()


class HubModelConfig(Section):
    """A pretrained model, by hub name or local path."""

    source: Literal["hub"] = "hub"
    name: str
    """`Qwen/Qwen3-0.6B`, or a folder with config.json, weights and tokenizer."""
    revision: str | None = None
    max_length: PositiveInt = 4096
    """Tokens of prompt and completion together."""


ModelConfig = Annotated[TinyModelConfig | HubModelConfig, Field(discriminator="source")]
