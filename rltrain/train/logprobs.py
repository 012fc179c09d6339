"""Token log-probabilities of a micro-batch. One function computes old, reference and new values, so
that on the sampling weights the ratio is exactly 1.

Only the hidden states that predict a trained token reach the output head, in chunks, so memory for
logits is `chunk x vocabulary` whatever the batch holds. A large vocabulary goes through
`rltrain_kernels`, which hold no row of logits at all and sum in fp32 whatever is computed in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rltrain.batch.packing import MicroBatch
from rltrain.errors import UserError
from rltrain.train.model import inner_model
from rltrain_kernels.available import triton_runs_on
from rltrain_kernels.linear_logprob import linear_logprob

LOGITS_BUDGET = 32 * 1024 * 1024
"""Logits held at once (elements); the chunk of tokens follows from the vocabulary."""
LARGE_VOCABULARY = 32_768
"""From here on `logprob_kernel: auto` leaves the plain head. It depends on nothing else, so that
all policies of a step are scored alike."""
KERNELS = {"auto": "auto", "chunked": "torch", "triton": "triton"}
"""`train.logprob_kernel` -> backend of `rltrain_kernels`."""


class TokenScores(NamedTuple):
    """Both [N], float32, nats."""

    logprobs: Tensor
    entropy: Tensor
    """Of the sampling distribution at each trained token; carries a gradient only if asked."""


def _score(
    hidden: Tensor, targets: Tensor, head: Any, temperature: float, entropy_grad: bool
) -> tuple[Tensor, Tensor]:
    logits = head(hidden).float() / temperature
    logp = torch.log_softmax(logits, dim=-1)
    every = logp if entropy_grad else logp.detach()
    entropy = -(every.exp() * every).sum(-1)
    return logp.gather(-1, targets[:, None]).squeeze(-1), entropy


def _mask_for(model: Any, mask: Tensor) -> Tensor:
    """Plain attention adds its mask to the scores; fused kernels take booleans."""
    if mask.dim() == 2 or model.config._attn_implementation != "eager":
        return mask
    allowed = torch.zeros(
        mask.shape,
        dtype=torch.get_autocast_dtype(mask.device.type)
        if torch.is_autocast_enabled(mask.device.type)
        else torch.float32,
    )
    return allowed.to(mask.device).masked_fill_(~mask, torch.finfo(allowed.dtype).min)


def predicting_states(decoder: Any, batch: MicroBatch) -> Tensor:
    """Last hidden states at the positions that predict the trained tokens: [N, H]. They are the
    states in which those tokens were sampled, for the output head and for a critic alike."""
    output = decoder(
        input_ids=batch.ids,
        attention_mask=_mask_for(decoder, batch.mask),
        position_ids=batch.positions,
        use_cache=False,
    )
    hidden: Tensor = output.last_hidden_state.flatten(0, 1)[batch.source]
    return hidden


def _kernel_for(head: Any) -> str | None:
    """The backend that scores this head; None for the plain one, which every kind of head has."""
    asked = getattr(head, "logprob_kernel", "auto")
    if asked == "plain" or type(head) is not torch.nn.Linear:
        return None
    if asked == "auto" and head.weight.shape[0] < LARGE_VOCABULARY:
        return None
    return KERNELS[asked]


def set_kernel(model: Any, name: str) -> None:
    """Have `token_scores` use `train.logprob_kernel` for this transformers model.

    Raises `UserError` for a kernel that cannot run here, or not with this head."""
    head = model.get_output_embeddings()
    if name not in ("auto", "plain") and type(head) is not torch.nn.Linear:
        raise UserError(
            f"train.logprob_kernel={name} needs a plain linear output head, this model has "
            f"{type(head).__name__}; use train.logprob_kernel=auto"
        )
    if name == "triton" and not triton_runs_on(head.weight.device):
        raise UserError(
            "train.logprob_kernel=triton needs Triton and a GPU; use train.logprob_kernel=auto"
        )
    head.logprob_kernel = name


def token_scores(
    model: Any, batch: MicroBatch, temperature: float, *, entropy_grad: bool = False
) -> TokenScores:
    """Log-probabilities of the trained tokens under the policy at `temperature`.

    Args:
        model: a transformers causal LM (LoRA layers inside it are used as they are).
        entropy_grad: for an entropy bonus; without one, its gradient would only cost memory.
    """
    model = inner_model(model)
    hidden = predicting_states(model.get_decoder(), batch)
    head = model.get_output_embeddings()
    kernel = _kernel_for(head)
    if kernel is not None:
        scores = linear_logprob(
            hidden, head.weight, batch.targets, head.bias, temperature=temperature, backend=kernel
        )
        return TokenScores(
            scores.logprobs, scores.entropy if entropy_grad else scores.entropy.detach()
        )
    chunk = max(1, LOGITS_BUDGET // head.weight.shape[0])
    if len(hidden) <= chunk:
        return TokenScores(*_score(hidden, batch.targets, head, temperature, entropy_grad))
    parts = [
        checkpoint(_score, h, t, head, temperature, entropy_grad, use_reentrant=False)
        for h, t in zip(torch.split(hidden, chunk), torch.split(batch.targets, chunk), strict=True)
    ]
    return TokenScores(*(torch.cat(column) for column in zip(*parts, strict=True)))
