"""Loss, gradient and statistics of a policy step from log-probabilities, in one pass over tokens.

function.py   the autograd function     kernel.py     the Triton kernel
reference.py  the plain oracle, which also runs where Triton does not
"""

from __future__ import annotations

from rltrain_kernels.policy_loss.function import policy_loss
from rltrain_kernels.policy_loss.reference import policy_loss_reference
from rltrain_kernels.policy_loss.terms import STATISTICS, LossTerms, PolicyLoss, Tokens

__all__ = [
    "STATISTICS",
    "LossTerms",
    "PolicyLoss",
    "Tokens",
    "policy_loss",
    "policy_loss_reference",
]
