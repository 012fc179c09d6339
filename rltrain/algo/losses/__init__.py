"""Policy losses, one file each. A new one is one small file and one line in `LOSSES`."""

from __future__ import annotations

from collections.abc import Callable

from rltrain.algo.losses import cispo, gspo, ppo_clip, reinforce
from rltrain.algo.losses.base import LossOutput

Loss = Callable[..., LossOutput]

LOSSES: dict[str, Loss] = {
    "ppo_clip": ppo_clip.loss,
    "gspo": gspo.loss,
    "cispo": cispo.loss,
    "reinforce": reinforce.loss,
}
"""name -> f(new [N], old [N], advantages [N], seq [N], sequences, **loss_args) -> LossOutput."""

__all__ = ["LOSSES", "Loss", "LossOutput"]
