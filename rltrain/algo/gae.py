"""Generalised advantage estimation: token rewards and a critic's values -> one advantage per token.

    delta_t = r_t + gamma V_{t+1} - V_t          V = 0 behind the last token: every answer ends
    A_t     = delta_t + gamma lam A_{t+1}
    R_t     = A_t + V_t                          what the critic is fitted to

Only tokens that the policy sampled are steps of this recursion. What a tool or the environment said
in between is passed over: the next value and the last advantage are carried across it.
"""

from __future__ import annotations

import torch
from torch import Tensor

WHITEN_EPS = 1e-8
"""Added to the standard deviation before dividing."""


@torch.no_grad()
def gae(
    rewards_N: Tensor,
    values_N: Tensor,
    seq_N: Tensor,
    sequences: int,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of many sequences at once. Paper: GAE, arXiv 1506.02438, eq. 16.

    Args:
        rewards_N: reward received for each trained token; usually the last of a sequence only.
        values_N: the critic's value of the state in which each token was sampled.
        seq_N: int64, which sequence a token belongs to, in 0..sequences-1 and never decreasing:
            sequences lie end to end, as in `batch.packing.MicroBatch`. Masked tokens are absent,
            and so are passed over.
        sequences: S; a sequence may be empty.
        gamma: discount per sampled token. lam: 0 trusts the critic, 1 the observed rewards.

    Returns (advantages_N, returns_N) without gradient, in the dtype of `values_N`.
    """
    tokens = len(values_N)
    if tokens == 0:
        return torch.zeros_like(values_N), torch.zeros_like(values_N)
    lengths_S = torch.bincount(seq_N, minlength=sequences)
    first_S = lengths_S.cumsum(0) - lengths_S
    column_N = torch.arange(tokens, device=seq_N.device) - first_S[seq_N]
    width = int(lengths_S.max())
    delta_ST = values_N.new_zeros(sequences, width + 1)
    value_ST = values_N.new_zeros(sequences, width + 1)
    value_ST[seq_N, column_N] = values_N
    delta_ST[seq_N, column_N] = (
        rewards_N.to(values_N.dtype) + gamma * value_ST[seq_N, column_N + 1] - values_N
    )
    # Behind the end of a sequence every delta is 0, so the recursion starts there with 0.
    advantage_ST = delta_ST
    for t in range(width - 1, -1, -1):
        advantage_ST[:, t] += gamma * lam * advantage_ST[:, t + 1]
    advantages_N = advantage_ST[seq_N, column_N]
    return advantages_N, advantages_N + values_N


@torch.no_grad()
def gae_sequence(
    rewards_T: Tensor,
    values_T: Tensor,
    mask_T: Tensor,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[Tensor, Tensor]:
    """The same for one sequence that still holds its masked tokens: the plain version.

    Args:
        rewards_T: a reward on a masked token would be lost; put it on the sampled token before.
        values_T: what stands at masked tokens is not looked at.
        mask_T: bool, True where the policy sampled the token.

    Returns (advantages_T, returns_T), 0 at masked tokens.

    Raises:
        ValueError: for a reward on a masked token.
    """
    if bool((rewards_T[~mask_T] != 0).any()):
        raise ValueError("a reward stands on a masked token; put it on the sampled token before it")
    advantages_T, returns_T = torch.zeros_like(values_T), torch.zeros_like(values_T)
    next_value = last = values_T.new_zeros(())
    for t in reversed(range(len(values_T))):
        if mask_T[t]:
            last = rewards_T[t] + gamma * next_value - values_T[t] + gamma * lam * last
            next_value = values_T[t]
            advantages_T[t], returns_T[t] = last, last + values_T[t]
    return advantages_T, returns_T


@torch.no_grad()
def whiten(values_N: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """(x - mean) / (std + eps) over the trained tokens of a whole step, unbiased std.

    Over micro-batches or ranks it must be called once, on all of their tokens, or each would get a
    scale of its own. Tokens where `mask_N` (bool) is False have no vote and get 0; so does a lone
    token, which has no spread."""
    kept = values_N if mask_N is None else values_N[mask_N]
    if len(kept) < 2:
        return torch.zeros_like(values_N)
    white = (values_N - kept.mean()) / (kept.std() + WHITEN_EPS)
    return white if mask_N is None else torch.where(mask_N, white, torch.zeros_like(white))
