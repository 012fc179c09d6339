"""The algorithm: advantage, loss, correction and aggregation are separate choices."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from rltrain.config.base import Section
from rltrain.config.critic import CriticConfig
from rltrain.config.offline import OfflineFields


class OverlongConfig(Section):
    """What happens to answers near or over the token budget (DAPO, arXiv 2503.14476)."""

    filter: bool = False
    """Leave truncated answers out: not trained on, and without a vote in the baseline."""
    cache: NonNegativeInt = 0
    """Tokens before the horizon in which a penalty grows linearly; 0 switches it off."""
    horizon: PositiveInt | None = None
    """Longest answer without the full penalty; None takes the budget of an episode,
    rollout.max_new_tokens * rollout.max_turns."""
    penalty: PositiveFloat = 1.0
    """What the full penalty takes off the reward."""


class KLConfig(Section):
    """How the policy is held to the model that training began with."""

    coef: NonNegativeFloat = 0.0
    """Coefficient per nat; 0 switches the term off, and no reference model is kept."""
    estimator: str = "k3_is"
    """Key of `algo.kl.KL`, which says what gradient each has: `k3_is` or `k2` for the loss, `k1`
    for the reward."""
    placement: Literal["loss", "reward"] = "loss"
    """`loss`: each token answers for the divergence at its own place; `reward`: for all that
    follows it too. The reward's penalty is taken off after the group's normalisation."""


class AlgoConfig(OfflineFields):
    """Each name is a key of one dict of pure functions in `rltrain.algo`."""

    advantage: str = "mean_centred"
    """Key of `algo.advantages.ADVANTAGES`."""
    advantage_args: dict[str, float] = {}
    """Keyword arguments of the advantage: `eps`, or for `gdpo` the weight of a gate by name."""
    overlong: OverlongConfig = OverlongConfig()
    loss: str = "ppo_clip"
    """Key of `algo.losses.LOSSES`, or `package.module:function` for one of your own."""
    loss_args: dict[str, float] = {}
    """Keyword arguments of the loss, such as clip ranges."""
    correction: str | tuple[str, ...] = "token_tis"
    """Key of `algo.corrections.CORRECTIONS`: what is done about trainer/engine mismatch;
    `package.module:function` works too. Several, as in `[token_tis, veto]`, multiply."""
    correction_args: dict[str, float] = {}
    """Keyword arguments of the correction, as in `+algo.correction_args.cap=3`; of several
    corrections, each takes those that it knows."""
    proximal: str = "recompute"
    """Key of `algo.proximal.PROXIMAL`: the policy that the loss's ratio starts from."""
    kl: KLConfig = KLConfig()
    entropy_coef: float = 0.0
    """Nats of mean entropy over the step's tokens, times this, are taken off the loss."""
    top_entropy: float = Field(default=1.0, gt=0, le=1)
    """Share of tokens, those of the highest entropy, that carry the policy loss; 0.2 is the 80/20
    rule (arXiv 2506.01939)."""
    aggregation: str = "constant"
    """Key of `algo.aggregation.AGGREGATIONS`: what the summed token losses are divided by."""
    epochs: PositiveInt = 1
    """Optimizer passes over each batch."""
    critic: CriticConfig | None = None
    """A value model beside the policy (`algo=ppo`), which then says how good each token was; what
    the advantage gives is taken as the answer's reward."""

    @property
    def corrections(self) -> tuple[str, ...]:
        return (self.correction,) if isinstance(self.correction, str) else self.correction


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
    """Optimizer and memory."""

    lr: PositiveFloat = 1e-6
    warmup_steps: int = Field(default=0, ge=0)
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after the warm-up, until `max_steps`."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: PositiveFloat = 1e-8
    """AdamW's epsilon; the group precision=fp16 sets 1e-15."""
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    micro_batch_tokens: PositiveInt = 16_384
    """Padded tokens per forward pass; more are accumulated over several passes."""
    packing: Literal["padded", "shared_prefix"] = "shared_prefix"
    """`shared_prefix` computes each group's prompt once; `padded` is its plain oracle."""
    logprob_kernel: Literal["auto", "plain", "chunked", "triton"] = "auto"
    """How the output head is scored. `plain` holds logits of some tokens; `chunked` and `triton`
    hold none beyond a workspace, sum in fp32, and need a plain linear head; `auto` is `plain` for
    vocabularies below 32,768, above it `triton` on a GPU that has it and `chunked` elsewhere."""
    lora: LoraConfig | None = None
    threads: PositiveInt = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_every: int = Field(default=50, ge=0)
    """Steps between checkpoints, from which a run goes on after a crash; what came back since is
    trained on again, not sampled again. 0 saves only at the end."""
    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints that are kept; one more than needed, in case that one is damaged."""


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
