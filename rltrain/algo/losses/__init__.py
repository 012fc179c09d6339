"""Policy losses, one file each. A new one is one small file and one line in `LOSSES`."""

from __future__ import annotations

from collections.abc import Callable

from rltrain.algo.losses import (
    aspo,
    cispo,
    clip_cov,
    dppo_kl,
    dppo_tv,
    gmpo,
    gspo,
    kl_cov,
    ppo_clip,
    reinforce,
    sapo,
    vespo,
)
from rltrain.algo.losses.base import LossOutput
from rltrain.algo.scored import Scored

Loss = Callable[[Scored], LossOutput]
"""Pure; keyword arguments are bound beforehand."""

LOSSES: dict[str, Callable[..., LossOutput]] = {
    "ppo_clip": ppo_clip.loss,
    "gspo": gspo.loss,
    "cispo": cispo.loss,
    "reinforce": reinforce.loss,
    "sapo": sapo.loss,
    "dppo_tv": dppo_tv.loss,
    "dppo_kl": dppo_kl.loss,
    "gmpo": gmpo.loss,
    "vespo": vespo.loss,
    "clip_cov": clip_cov.loss,
    "kl_cov": kl_cov.loss,
    "aspo": aspo.loss,
}
"""name -> f(Scored, **loss_args) -> LossOutput."""

__all__ = ["LOSSES", "Loss", "LossOutput", "Scored"]
