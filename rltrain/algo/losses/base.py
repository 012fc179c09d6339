"""What every policy loss returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LossOutput(NamedTuple):
    """Per-token results of a policy loss, both [N]."""

    loss: Tensor
    """To be minimised, before aggregation."""
    clipped: Tensor
    """1.0 where clipping removed the gradient, else 0.0; for the log."""
