"""Off-policy sequence masking: bad answers that the policy has already left behind."""

from __future__ import annotations

from torch import Tensor

from rltrain.algo.ratio import log_ratio, sequence_mean
from rltrain.algo.scored import Scored


def opsm(scored: Scored, *, delta: float = 0.5) -> Tensor:
    """0 where A < 0 and mean_t log(mu_t / pi_t) > delta, else 1

    pi is the policy being updated, so the mask sees both the mismatch and this step's drift. delta
    in nats per token. Eq. 9; with advantages per token, each token's own sign decides.

    Paper: DeepSeek-V3.2, arXiv 2512.02556
    """
    gone_N = -log_ratio(scored.new.detach(), scored.behaviour)
    far_S = sequence_mean(gone_N, scored.seq, scored.sequences) > delta
    return (~(far_S[scored.seq] & (scored.advantages < 0))).to(gone_N.dtype)
