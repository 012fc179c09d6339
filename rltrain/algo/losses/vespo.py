"""VESPO: a smooth weight of the whole sequence's ratio, from a variational argument."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rltrain.algo.losses.base import LossOutput
from rltrain.algo.ratio import LOG_RATIO_CLAMP, log_ratio, sequence_sum
from rltrain.algo.scored import Scored

SMALLEST = math.log(1e-8)
"""log W is not taken below this."""


def loss(
    scored: Scored,
    *,
    k_pos: float = 2.0,
    lambda_pos: float = 3.0,
    k_neg: float = 3.0,
    lambda_neg: float = 2.0,
) -> LossOutput:
    """-sg(phi(W)) A log pi, phi(W) = W^k exp(lambda (1 - W)), W = prod_t pi_t / mu_t

    phi(1) = 1; it falls off on both sides of k / lambda. (k, lambda) depends on the sign of A.
    W reaches from the engine to the policy, so it already corrects for the mismatch: use
    `correction=none`. The paper averages over tokens (`token_mean`).

    Paper: VESPO, arXiv 2602.10693
    """
    new_N = scored.new.detach()
    log_N = log_ratio(new_N, scored.old) + log_ratio(scored.old, scored.behaviour)
    log_S = sequence_sum(log_N, scored.seq, scored.sequences).clamp(SMALLEST, LOG_RATIO_CLAMP)
    w_N = log_S[scored.seq]
    up_N = scored.advantages >= 0
    phi_N = torch.where(up_N, _log_phi(w_N, k_pos, lambda_pos), _log_phi(w_N, k_neg, lambda_neg))
    return LossOutput(-phi_N.exp() * scored.advantages * scored.new, torch.zeros_like(phi_N))


def _log_phi(log_w_N: Tensor, k: float, lam: float) -> Tensor:
    return lam + k * log_w_N - lam * log_w_N.exp()
