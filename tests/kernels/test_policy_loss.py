"""The fused policy loss against the functions of rltrain.algo: loss, gradients, statistics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rltrain.algo.corrections import combined, none
from rltrain.algo.kl import k3
from rltrain.algo.losses import LOSSES
from rltrain.algo.mismatch import mismatch
from rltrain.algo.ratio import ratio
from rltrain.algo.scored import Scored
from rltrain.train.objective import Objective
from rltrain_kernels.available import triton_runs_on
from rltrain_kernels.policy_loss import STATISTICS, LossTerms, PolicyLoss, Tokens, policy_loss

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKENDS = ["torch", *(["triton"] if triton_runs_on(DEVICE) else [])]
CASES = {
    "CISPO": PolicyLoss(kind="cispo", clip_high=1.3),
    "CISPO, TIS": PolicyLoss(kind="cispo", clip_high=5.0, tis_cap=1.1),
    "GRPO": PolicyLoss(kind="ppo_clip", kl_coef=0.04),
    "DAPO": PolicyLoss(kind="ppo_clip", clip_high=0.28, tis_cap=2.0),
    "all": PolicyLoss(kind="ppo_clip", tis_cap=2.0, kl_coef=0.1, entropy_coef=0.01, tokens=4000),
}


def tokens(count: int, *, reference: bool) -> Tokens:
    """Ratios on both sides of every clip, a tenth of all tokens far off, a tenth exactly on."""
    g = torch.Generator().manual_seed(count)

    def draw(scale: float = 1.0) -> Tensor:
        return torch.randn(count, generator=g).to(DEVICE) * scale

    old = -draw().abs()
    new = old + draw(0.3)
    new[:: 10] = old[:: 10]
    new[3::10] -= 25
    return Tokens(
        new=new.requires_grad_(),
        old=old,
        trainer=old + draw(0.01),
        behaviour=old + draw(0.2),
        advantages=draw(),
        weights=draw().abs() / count,
        entropy=draw().abs().requires_grad_(),
        reference=old + draw(0.5) if reference else None,
    )


def by_the_library(batch: Tokens, spec: PolicyLoss) -> tuple[Any, dict[str, Tensor]]:
    """What the learner computes: `Objective`, and what it measures, as sums."""
    args = {"clip_high": spec.clip_high}
    if spec.kind == "ppo_clip":
        args["clip_low"] = spec.clip_low
    objective = Objective(
        loss=lambda scored: LOSSES[spec.kind](scored, **args),
        correction=combined(["token_tis"], {"cap": spec.tis_cap}) if spec.tis_cap else none,
        epochs=1,
        temperature=1.0,
        kl=k3 if spec.kl_coef else None,
        kl_coef=spec.kl_coef,
        entropy_coef=spec.entropy_coef,
    )
    scored = Scored(
        new=batch.new,
        old=batch.old,
        trainer=batch.trainer,
        behaviour=batch.behaviour,
        advantages=batch.advantages,
        seq=torch.zeros(len(batch.old), dtype=torch.long, device=DEVICE),
        sequences=1,
        entropy=batch.entropy,
        reference=batch.reference,
    )
    terms = objective(scored, batch.weights, spec.tokens)
    gaps = mismatch(scored)
    columns = {
        "entropy": batch.entropy,
        "ratio": ratio(batch.new, batch.old),
        "clipped": terms.clipped,
        "correction": terms.weight,
        "correction_sq": terms.weight**2,
        "masked": (terms.weight == 0).float(),
        "abs_gap": gaps["mismatch/mean_abs_logprob"],
        **{name: gaps[f"mismatch/{name}"] for name in ("k1", "k2", "k3", "rho", "rho_sq")},
        "kl": terms.kl if terms.kl is not None else torch.zeros(1, device=DEVICE),
    }
    return terms, {name: column.detach().sum() for name, column in columns.items()}


def gradients(loss: Tensor, batch: Tokens) -> list[Tensor]:
    """Of new log-probabilities and entropy, under a loss scale."""
    found = torch.autograd.grad(loss * 2.0**10, [batch.new, batch.entropy], allow_unused=True)
    columns = (batch.new, batch.entropy)
    return [torch.zeros_like(c) if g is None else g for g, c in zip(found, columns, strict=True)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [1, 1023, 2049])
@pytest.mark.parametrize("spec", CASES.values(), ids=CASES.keys())
def test_loss_gradients_and_statistics_are_the_librarys(
    spec: PolicyLoss, count: int, backend: str
) -> None:
    batch = tokens(count, reference=spec.kl_coef > 0)
    expected, sums = by_the_library(batch, spec)
    found: LossTerms = policy_loss(batch, spec, backend=backend)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.clipped, expected.clipped, rtol=0, atol=0)
    torch.testing.assert_close(found.correction, expected.weight)
    pairs = zip(gradients(found.loss, batch), gradients(expected.loss, batch), strict=True)
    for of_found, of_expected in pairs:
        torch.testing.assert_close(of_found, of_expected, rtol=1e-5, atol=1e-7)
    assert set(sums) == set(STATISTICS)
    for name, value in zip(STATISTICS, found.sums, strict=True):
        torch.testing.assert_close(value, sums[name], rtol=1e-4, atol=1e-4, msg=name)


def test_the_cases_reach_every_branch() -> None:
    batch = tokens(2049, reference=True)
    clipped = policy_loss(batch, CASES["GRPO"], backend="torch").clipped
    assert 0.1 < float(clipped.mean()) < 0.9
    cut = policy_loss(batch, CASES["CISPO, TIS"], backend="torch").correction
    assert 0.1 < float((cut == 1.1).float().mean()) < 0.9


def test_a_backend_that_is_not_there_is_told() -> None:
    with pytest.raises(ValueError, match="auto, torch or triton"):
        policy_loss(tokens(1, reference=False), CASES["CISPO"], backend="cuda")
