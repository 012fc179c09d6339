"""What TRL calls a method, and what we call it: the cases of `rltrain.bench.parity`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HORIZON = 16
"""Token budget of an answer, which Dr. GRPO divides by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One method on both sides."""

    trl: Mapping[str, Any]
    """Arguments of TRL's GRPOConfig."""
    algo: Mapping[str, Any]
    """Our `algo` section; whatever it does not name is what TRL does by default: a mean over each
    sequence, and no correction."""
    shows: tuple[str, ...]
    """Rows of the table that this case speaks for, as `axis name`."""
    engine: bool = False
    """Whether the answers come from an engine, whose mismatch TRL then corrects."""
    whole: bool = False
    """One micro-batch, for what depends on the split."""
    gmpo: bool = False
    """TRL has a trainer of its own for it."""
    clips: bool = False
    """The loss removes some token's gradient on these answers."""
    masks: bool = False
    """The correction removes some token on these answers."""


def _case(
    *shows: str, trl: Mapping[str, Any], algo: Mapping[str, Any] | None = None, **how: Any
) -> Case:
    given = {"correction": "none", "aggregation": "sequence_mean", **(algo or {})}
    return Case(trl={"loss_type": "grpo", **trl}, algo=given, shows=shows, **how)


def _engine(
    name: str, mode: str, args: Mapping[str, float], *, low: float | None = None, masks: bool
) -> Case:
    """A correction of the engine's mismatch, between bounds."""
    return _case(
        f"correction {name}",
        trl={
            "vllm_importance_sampling_mode": mode,
            "vllm_importance_sampling_clip_max": args.get("cap", args.get("high")),
            "vllm_importance_sampling_clip_min": low,
        },
        algo={"correction": name, "correction_args": args},
        engine=True,
        masks=masks,
    )


CASES: dict[str, Case] = {
    "grpo": _case("loss ppo_clip", "aggregation sequence_mean", "correction none",
                  "proximal recompute", trl={}, clips=True),
    "clip-higher, token mean": _case(
        "loss ppo_clip", "aggregation token_mean",
        trl={"loss_type": "dapo", "epsilon": 0.2, "epsilon_high": 0.28},
        algo={"loss_args": {"clip_low": 0.2, "clip_high": 0.28}, "aggregation": "token_mean"},
        clips=True,
    ),
    "bnpo, one micro-batch": _case(
        "aggregation token_mean", trl={"loss_type": "bnpo"}, algo={"aggregation": "token_mean"},
        whole=True, clips=True,
    ),
    "dr_grpo": _case(
        "aggregation constant", trl={"loss_type": "dr_grpo", "scale_rewards": "none"},
        algo={"aggregation": "constant"}, clips=True,
    ),
    "two-sided": _case(
        "loss ppo_clip", trl={"delta": 1.1, "epsilon": 0.05},
        algo={"loss_args": {"delta": 1.1, "clip_low": 0.05, "clip_high": 0.05}}, clips=True,
    ),
    "gspo": _case(
        "loss gspo",
        trl={"importance_sampling_level": "sequence", "epsilon": 0.02, "epsilon_high": 0.03},
        algo={"loss": "gspo", "loss_args": {"clip_low": 0.02, "clip_high": 0.03}}, clips=True,
    ),
    "luspo": _case(
        "aggregation sequence_sum",
        trl={"loss_type": "luspo", "importance_sampling_level": "sequence", "epsilon": 0.02,
             "epsilon_high": 0.03},
        algo={"loss": "gspo", "loss_args": {"clip_low": 0.02, "clip_high": 0.03},
              "aggregation": "sequence_sum"},
        clips=True,
    ),
    "cispo": _case(
        "loss cispo", trl={"loss_type": "cispo", "epsilon_high": 1.1},
        algo={"loss": "cispo", "loss_args": {"clip_high": 1.1}, "aggregation": "token_mean"},
        clips=True,
    ),
    "sapo": _case(
        "loss sapo",
        trl={"loss_type": "sapo", "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05},
        algo={"loss": "sapo"},
    ),
    "vespo": _case(
        "loss vespo",
        trl={"loss_type": "vespo", "vllm_importance_sampling_mode": "token_truncate",
             "vllm_importance_sampling_clip_max": 1e6},
        algo={"loss": "vespo", "aggregation": "token_mean"}, engine=True,
    ),
    "gmpo": _case(
        "loss gmpo", trl={"epsilon": 0.1, "epsilon_high": 0.1},
        algo={"loss": "gmpo", "loss_args": {"clip_low": 0.1, "clip_high": 0.1}},
        gmpo=True, clips=True,
    ),
    "token truncate": _engine("token_tis", "token_truncate", {"cap": 1.5}, masks=False),
    "sequence truncate": _engine("sequence_tis", "sequence_truncate", {"cap": 1.5}, masks=False),
    "token mask": _engine("token_mis", "token_mask", {"cap": 1.5}, masks=True),
    "token mask, two-sided": _engine(
        "icepop", "token_mask", {"low": 0.6, "high": 1.5}, low=0.6, masks=True
    ),
    "sequence mask": _engine("sequence_mis", "sequence_mask", {"cap": 1.5}, masks=True),
    "off-policy mask": _case(
        "correction opsm", trl={"off_policy_mask_threshold": 0.1},
        algo={"correction": "opsm", "correction_args": {"delta": 0.1}}, masks=True,
    ),
    "kl": _case(
        "kl k3", trl={"beta": 0.3, "use_bias_correction_kl": False},
        algo={"kl": {"coef": 0.3, "estimator": "k3"}},
    ),
    "kl, bias-corrected": _case(
        "kl k3_is", trl={"beta": 0.3, "use_bias_correction_kl": True},
        algo={"kl": {"coef": 0.3, "estimator": "k3_is"}},
    ),
    "entropy bonus": _case(
        "entropy entropy_coef", trl={"entropy_coef": 0.1}, algo={"entropy_coef": 0.1}
    ),
    "high-entropy tokens": _case(
        "entropy top_entropy", trl={"top_entropy_quantile": 0.2}, algo={"top_entropy": 0.2},
        whole=True,
    ),
    "several at once": _case(
        trl={"loss_type": "dapo", "epsilon": 0.1, "epsilon_high": 0.15, "beta": 0.1,
             "off_policy_mask_threshold": 0.1, "vllm_importance_sampling_mode": "token_truncate",
             "vllm_importance_sampling_clip_max": 1.5},
        algo={"loss_args": {"clip_low": 0.1, "clip_high": 0.15}, "aggregation": "token_mean",
              "correction": ("token_tis", "opsm"), "correction_args": {"cap": 1.5, "delta": 0.1},
              "kl": {"coef": 0.1, "estimator": "k3_is"}},
        engine=True, clips=True, masks=True,
    ),
}  # fmt: skip
