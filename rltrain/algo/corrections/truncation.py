"""Truncated importance sampling: the ratio, capped. Low variance, biased where it is cut."""

from __future__ import annotations

from torch import Tensor

from rltrain.algo.ratio import ratio, sequence_ratio
from rltrain.algo.scored import Scored


def token(scored: Scored, *, cap: float = 2.0) -> Tensor:
    """min(rho_t, cap), rho = pi_old / mu

    Paper: TIS (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training"), no arXiv
    """
    return ratio(scored.old, scored.behaviour).clamp(max=cap)


def sequence(scored: Scored, *, cap: float = 2.0) -> Tensor:
    """min(prod_t rho_t, cap), the same for all tokens of a sequence

    Paper: Seq-TIS, arXiv 2510.26788
    """
    rho_S = sequence_ratio(scored.old, scored.behaviour, scored.seq, scored.sequences)
    return rho_S.clamp(max=cap)[scored.seq]
