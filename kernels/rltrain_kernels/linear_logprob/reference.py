"""The oracle: all logits at once, in the accumulation dtype, and torch's own derivatives."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_logprob_reference(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    temperature: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """(log p[target], entropy, log-sum-exp), all [N], of softmax((hidden W^T + b) / temperature).

    Args:
        hidden: [N, H]. weight: [V, H]. targets: [N], int64. bias: [V].
        temperature: a number, or one per token [N].

    Everything is computed in fp32, in fp64 for fp64 inputs; holds [N, V] several times.
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    logits = hidden.to(dtype) @ weight.to(dtype).T
    if bias is not None:
        logits = logits + bias.to(dtype)
    if isinstance(temperature, Tensor):
        temperature = temperature.to(dtype)[:, None]
    logits = logits / temperature
    logp = torch.log_softmax(logits, dim=-1)
    entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(-1, targets[:, None])[:, 0], entropy, logits.logsumexp(-1)
