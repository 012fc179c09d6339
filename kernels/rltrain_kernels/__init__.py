"""Fused operations of policy training. Each has a plain reference beside it, which is its oracle,
and runs without a GPU and without Triton, then in torch.

    linear_logprob   hidden states -> token log-probabilities and entropy, never holding [N, V]
    policy_loss      log-probabilities -> loss, gradient and statistics of a step, in one pass
"""

from __future__ import annotations

from rltrain_kernels.linear_logprob import TokenScores, linear_logprob
from rltrain_kernels.policy_loss import LossTerms, PolicyLoss, policy_loss

__all__ = ["LossTerms", "PolicyLoss", "TokenScores", "linear_logprob", "policy_loss"]
