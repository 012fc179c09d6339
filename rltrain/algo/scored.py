"""What a policy loss and a correction are given: a micro-batch, scored by all policies."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Scored(NamedTuple):
    """The trained tokens of a micro-batch, laid end to end. Tensors are [N]; log-probabilities in
    nats at the sampling temperature. A sequence is never split over micro-batches."""

    new: Tensor
    """log pi: the policy being updated. The gradient flows through this tensor alone."""
    old: Tensor
    """log pi_old: the proximal policy, which the ratio pi / pi_old starts from
    (`algo.proximal.PROXIMAL`)."""
    trainer: Tensor
    """The learner's own log-probabilities before the step's first update: what the engine should
    have said. Equal to `old` unless the proximal policy is another one."""
    behaviour: Tensor
    """log mu: what the engine said when it sampled. Always finite."""
    advantages: Tensor
    seq: Tensor
    """int64, which sequence a token belongs to: 0..sequences-1, never decreasing."""
    sequences: int
    entropy: Tensor
    """Entropy of pi (nats) where the token was sampled; has a gradient only if a bonus is asked."""
    reference: Tensor | None = None
    """log pi_ref, if there is a KL term."""
