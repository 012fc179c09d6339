"""KL to a reference policy: estimators per token, and what each does to the gradient.

x = log(pi_ref / pi) of the sampled token. All estimate KL(pi || pi_ref) in nats when tokens come
from pi; their *gradients* are another matter (arXiv 2510.01555, 2512.21852; every line below is
checked by enumeration in tests/algo/test_kl.py). Reverse KL is KL(pi || pi_ref).

            in the loss, differentiated                in the reward, detached
    k1      nothing: E[grad log pi] = 0                reverse KL, exactly
    k2      reverse KL                                 a bias: that of E[k2] less reverse KL
    k3      *forward* KL(pi_ref || pi)                 a bias: reverse less forward KL
    k3_is   reverse KL, on and off policy              as k3

"In the loss" holds the tokens before fixed: each token answers for the divergence at its own place.
"In the reward" a token answers for all that follow it, which is the gradient of the sequence's KL.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rltrain.algo.ratio import log_ratio, ratio, sequence_sum
from rltrain.algo.scored import Scored

Kl = Callable[[Scored], Tensor]


def _x(scored: Scored) -> Tensor:
    assert scored.reference is not None, "a KL term needs the reference's log-probabilities"
    return log_ratio(scored.reference, scored.new)


def k1(scored: Scored) -> Tensor:
    """-x, x = log(pi_ref / pi)

    Unbiased and of high variance. For the reward; in the loss it does nothing on average.

    Paper: Schulman 2020 (Approximating KL divergence), no arXiv
    """
    return -_x(scored)


def k2(scored: Scored) -> Tensor:
    """x^2 / 2, x = log(pi_ref / pi)

    Biased as a number, but in the loss and on policy its gradient is that of the reverse KL.

    Paper: Schulman 2020 (Approximating KL divergence), no arXiv
    """
    return _x(scored) ** 2 / 2


def k3(scored: Scored) -> Tensor:
    """e^x - 1 - x, x = log(pi_ref / pi)

    Unbiased, never negative, of low variance: GRPO's. In the loss its gradient is that of the
    forward KL.

    Paper: Schulman 2020 (Approximating KL divergence), no arXiv; GRPO, arXiv 2402.03300, eq. 4
    """
    x_N = _x(scored)
    return x_N.exp() - 1 - x_N


def k3_is(scored: Scored) -> Tensor:
    """r (e^x - 1 - x), x = log(pi_ref / pi), r = pi / pi_old, differentiated through r too

    grad(r k3) = r ((e^x - 1 - x) + (1 - e^x)) grad log pi = r log(pi / pi_ref) grad log pi: the
    reverse KL, whichever policy pi_old sampled.

    Paper: DeepSeek-V3.2, arXiv 2512.02556
    """
    return ratio(scored.new, scored.old) * k3(scored)


KL: dict[str, Kl] = {"k1": k1, "k2": k2, "k3": k3, "k3_is": k3_is}
"""name -> f(Scored) -> estimate [N], differentiable in `new`."""


def penalty(kl: Kl, scored: Scored) -> Tensor:
    """The estimate between the policy that began the step and the reference [N], without
    gradient: what a token costs when KL is part of the reward."""
    return kl(scored._replace(new=scored.trainer, old=scored.trainer)).detach()


def to_go(values_N: Tensor, seq_N: Tensor, sequences: int) -> Tensor:
    """Sum over a token and those after it in its sequence [N]: what the token can still change."""
    before_N = values_N.cumsum(0) - values_N
    total_S = sequence_sum(values_N, seq_N, sequences)
    start_S = total_S.cumsum(0) - total_S
    return total_S[seq_N] - (before_N - start_S[seq_N])
