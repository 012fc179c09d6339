"""The proximal policy: where the ratio pi / pi_old starts from, and its trust region with it.

The policy that sampled and the one that a trust region is drawn around need not be the same
(decoupled PPO, arXiv 2110.00641): the loss clips pi / pi_old, the correction weighs pi_old / mu.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Policies(NamedTuple):
    """Log-probabilities of the trained tokens, all [N] and without gradient."""

    new: Tensor
    """pi, being updated."""
    trainer: Tensor
    """The learner's own before the step's first update."""
    behaviour: Tensor
    """mu."""
    lag: Tensor
    """Versions between the policy that sampled the token and the one that the step began with."""


Proximal = Callable[[Policies], Tensor]


def recompute(policies: Policies) -> Tensor:
    """pi_old = the learner's policy when the step began, from the first pass's own forward

    Paper: decoupled PPO, arXiv 2110.00641; AReaL, arXiv 2505.24298
    """
    return policies.trainer


def behaviour(policies: Policies) -> Tensor:
    """pi_old = mu: the ratio corrects for the engine too, and rho = 1 (bypass)

    The trust region is then drawn around stale weights: with a large lag it holds back the policy's
    own progress.

    Paper: PPO, arXiv 1707.06347, where the sampling policy is the old one
    """
    return policies.behaviour


def approximate(policies: Policies) -> Tensor:
    """log pi_old = log mu + a (log pi - log mu), a = (lag - 1) / lag, 0 for a lag of 0

    The policy one version behind pi, if log-probabilities moved evenly since the token was sampled:
    a = (v_old - v_mu) / (v_pi - v_mu) with v_old = v_pi - 1. Made to save a forward pass; here
    the first pass gives `recompute` for nothing, so this is for comparing.

    Paper: AReaL's documentation (proximal log-probability approximation), no arXiv
    """
    lag_N = policies.lag.to(policies.new.dtype)
    share_N = torch.where(lag_N > 0, (lag_N - 1) / lag_N.clamp(min=1), torch.zeros_like(lag_N))
    return policies.behaviour + share_N * (policies.new - policies.behaviour)


PROXIMAL: dict[str, Proximal] = {
    "recompute": recompute,
    "behaviour": behaviour,
    "approximate": approximate,
}
"""name -> f(Policies) -> log pi_old [N]."""
