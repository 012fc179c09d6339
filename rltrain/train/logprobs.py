"""Token log-probabilities of a micro-batch. One function computes old, reference and new values, so
that on the sampling weights the ratio is exactly 1.

Only the hidden states that predict a trained token reach the output head, in chunks, so memory for
logits is `chunk x vocabulary` whatever the batch holds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rltrain.batch.packing import MicroBatch
from rltrain.train.model import inner_model

LOGITS_BUDGET = 32 * 1024 * 1024
"""Logits held at once (elements); the chunk of tokens follows from the vocabulary."""


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
    chunk = max(1, LOGITS_BUDGET // head.weight.shape[0])
    if len(hidden) <= chunk:
        return TokenScores(*_score(hidden, batch.targets, head, temperature, entropy_grad))
    parts = [
        checkpoint(_score, h, t, head, temperature, entropy_grad, use_reentrant=False)
        for h, t in zip(torch.split(hidden, chunk), torch.split(batch.targets, chunk), strict=True)
    ]
    return TokenScores(*(torch.cat(column) for column in zip(*parts, strict=True)))
