"""The algorithm: advantage, loss, correction and aggregation are separate choices."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from rltrain.config.base import Section


class AlgoConfig(Section):
    """Each name is a key of one dict of pure functions in `rltrain.algo`."""

    advantage: str = "mean_centred"
    """Key of `algo.advantages.ADVANTAGES`."""
    loss: str = "ppo_clip"
    """Key of `algo.losses.LOSSES`."""
    loss_args: dict[str, float] = {}
    """Keyword arguments of the loss, such as clip ranges."""
    correction: str = "token_tis"
    """Key of `algo.corrections.CORRECTIONS`: what is done about trainer/engine mismatch."""
    correction_args: dict[str, float] = {}
    aggregation: str = "constant"
    """Key of `algo.aggregation.AGGREGATIONS`: what the summed token losses are divided by."""
    epochs: PositiveInt = 1
    """Optimizer passes over each batch."""


class LoraConfig(Section):
    """Low-rank adapters in place of full training."""

    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )


class TrainConfig(Section):
    """Optimizer, precision and memory."""

    lr: PositiveFloat = 1e-6
    warmup_steps: int = Field(default=0, ge=0)
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after the warm-up, until `max_steps`."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Compute precision; parameters are kept in fp32 beneath bf16 and fp16."""
    micro_batch_tokens: PositiveInt = 16_384
    """Padded tokens per forward pass; more are accumulated over several passes."""
    packing: Literal["padded", "shared_prefix"] = "shared_prefix"
    """`shared_prefix` computes each group's prompt once; `padded` is its plain oracle."""
    lora: LoraConfig | None = None
    threads: PositiveInt = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_every: int = Field(default=0, ge=0)
    """Steps between checkpoints; 0 saves only at the end."""


class EvalConfig(Section):
    """Greedy evaluation on held-out tasks, before and after training."""

    split: str = "test"
    tasks: PositiveInt = 600
    every: int = Field(default=0, ge=0)
    """Steps between evaluations on `validation`; 0 means before and after only."""


class TrackConfig(Section):
    """Where metrics go besides metrics.jsonl, which is always written."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    project: str = "rltrain"
    group: str | None = None
    rollouts_per_step: int = Field(default=8, ge=0)
    """Rows of the rollout table sent to wandb; the run directory always keeps every rollout."""
