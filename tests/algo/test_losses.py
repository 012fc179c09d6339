"""Policy losses and their gradients with respect to log pi, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rltrain.algo.losses import LOSSES
from rltrain.algo.losses.base import LossOutput
from rltrain.algo.scored import Scored
from tests.algo.scored_tokens import scored_tokens, tensor

OLD = math.log(0.25)
KEPT = {"share": 0.0}
"""Arguments with which Clip-Cov leaves no token out."""


def run(
    name: str,
    ratios: list[float],
    advantages: list[float],
    seq: list[int] | None = None,
    **args: float,
) -> tuple[LossOutput, list[float]]:
    """Loss per token and d(sum of losses) / d(log pi) at the given ratios pi / pi_old."""
    return backward(name, scored_tokens(ratios, advantages, seq), **args)


def backward(name: str, scored: Scored, **args: float) -> tuple[LossOutput, list[float]]:
    out = LOSSES[name](scored, **args)
    out.loss.sum().backward()
    assert isinstance(scored.new.grad, Tensor)
    return out, scored.new.grad.tolist()


def test_every_loss_is_tested_here() -> None:
    assert set(LOSSES) == {
        "ppo_clip", "gspo", "cispo", "reinforce", "sapo", "dppo_tv", "dppo_kl", "gmpo", "vespo",
        "clip_cov", "kl_cov", "aspo",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),
        (1.1, 1.0, -1.1, -1.1, 0),
        (1.1999, 1.0, -1.1999, -1.1999, 0),  # just inside the upper bound
        (1.2001, 1.0, -1.2, 0.0, 1),  # just outside
        (1.5, -1.0, 1.5, 1.5, 0),  # a bad token that became likelier keeps its gradient
        (0.8001, -1.0, 0.8001, 0.8001, 0),  # just inside the lower bound
        (0.7999, -1.0, 0.8, 0.0, 1),  # just outside
        (0.5, 1.0, -0.5, -0.5, 0),  # a good token that became unlikelier keeps its gradient
        (3.0, 0.0, 0.0, 0.0, 0),
    ],
)
def test_ppo_clips_only_what_already_moved_far_enough(
    ratio: float, advantage: float, loss: float, gradient: float, clipped: int
) -> None:
    out, grad = run("ppo_clip", [ratio], [advantage])
    assert out.loss.item() == pytest.approx(loss)
    assert grad[0] == pytest.approx(gradient)
    assert out.clipped.item() == clipped


def test_clip_higher_lets_good_tokens_go_further_than_bad_ones() -> None:
    out, grad = run("ppo_clip", [1.25, 0.75], [1.0, -1.0], clip_low=0.2, clip_high=0.28)
    assert out.loss.tolist() == pytest.approx([-1.25, 0.8])
    assert grad == pytest.approx([-1.25, 0.0])


def test_dual_clip_bounds_the_loss_of_bad_tokens_only() -> None:
    out, grad = run("ppo_clip", [2.0, 4.0, 4.0], [-1.0, -1.0, 1.0], dual_clip=3.0)
    assert out.loss.tolist() == pytest.approx([2.0, 3.0, -1.2])
    assert grad == pytest.approx([2.0, 0.0, 0.0])
    assert out.clipped.tolist() == [0, 1, 1]


def test_delta_bounds_the_ratio_of_bad_tokens() -> None:
    out, grad = run("ppo_clip", [3.0, 10.0], [-1.0, -1.0], delta=4.0)
    assert out.loss.tolist() == pytest.approx([3.0, 4.0])
    assert grad == pytest.approx([3.0, 0.0])
    assert out.clipped.tolist() == [0, 1]


@pytest.mark.parametrize("ratio", [0.05, 0.5, 0.79, 0.9, 1.1, 1.3, 5.0, 30.0])
@pytest.mark.parametrize("advantage", [-0.7, 0.7])
@pytest.mark.parametrize("args", [{}, {"dual_clip": 3.0}, {"delta": 4.0}])
def test_clipped_says_exactly_where_the_gradient_is_gone(
    ratio: float, advantage: float, args: dict[str, float]
) -> None:
    out, grad = run("ppo_clip", [ratio], [advantage], **args)
    assert (out.clipped.item() == 1) == (grad[0] == 0)


def test_gspo_uses_one_ratio_for_all_tokens_of_a_sequence() -> None:
    # Sequence 0: log-ratios 0.2 and -0.1, mean 0.05. Sequence 1: log-ratio 0.3, clipped at 1.1.
    ratios = [math.exp(0.2), math.exp(-0.1), math.exp(0.3)]
    out, grad = run("gspo", ratios, [1.0, 1.0, 1.0], [0, 0, 1], clip_low=0.1, clip_high=0.1)
    inside = math.exp(0.05)
    assert out.loss.tolist() == pytest.approx([-inside, -inside, -1.1])
    assert grad == pytest.approx([-inside, -inside, 0.0])
    assert out.clipped.tolist() == [0, 0, 1]


def test_gspo_keeps_the_gradient_of_a_bad_sequence_that_became_likelier() -> None:
    out, grad = run("gspo", [math.exp(0.3)], [-1.0], clip_low=0.1, clip_high=0.1)
    assert out.loss.item() == pytest.approx(math.exp(0.3))
    assert grad == pytest.approx([math.exp(0.3)])


def test_gspo_averaged_over_tokens_is_the_gradient_of_the_sequence_ratio() -> None:
    ratios = [1.02, 0.97, 1.01]
    _, grad = run("gspo", ratios, [0.6] * 3, clip_low=0.1, clip_high=0.1)
    new = torch.tensor([OLD + math.log(r) for r in ratios], dtype=torch.float64).requires_grad_()
    (-0.6 * (new - OLD).mean().exp()).backward()
    assert new.grad is not None
    assert [g / 3 for g in grad] == pytest.approx(new.grad.tolist())


def test_cispo_clips_the_weight_and_never_the_gradient() -> None:
    out, grad = run("cispo", [2.0, 8.0], [1.0, -1.0], clip_high=5.0)
    assert grad == pytest.approx([-2.0, 5.0])
    assert out.loss.tolist() == pytest.approx(
        [-2.0 * (OLD + math.log(2)), 5.0 * (OLD + math.log(8))]
    )
    assert out.clipped.tolist() == [0, 1]


def test_reinforce_has_the_advantage_as_its_gradient() -> None:
    out, grad = run("reinforce", [1.0, 3.0], [0.5, -2.0])
    assert grad == pytest.approx([-0.5, 2.0])
    assert out.loss[0].item() == pytest.approx(-0.5 * OLD)


@pytest.mark.parametrize("name", list(LOSSES))
def test_on_policy_every_loss_has_the_policy_gradient(name: str) -> None:
    args = KEPT if name == "clip_cov" else {}
    out, grad = run(name, [1.0, 1.0, 1.0], [0.5, -2.0, 0.25], [0, 1, 2], **args)
    assert grad == pytest.approx([-0.5, 2.0, -0.25])
    assert out.clipped.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", list(LOSSES))
@settings(max_examples=25)
@given(ratios=st.lists(st.floats(0.01, 20), min_size=1, max_size=6))
def test_without_advantage_no_loss_has_a_gradient(name: str, ratios: list[float]) -> None:
    args = {"coef": 0.0} if name == "kl_cov" else {}  # its penalty is there without advantage too
    _, grad = run(name, ratios, [0.0] * len(ratios), **args)
    assert grad == [0.0] * len(ratios)


@pytest.mark.parametrize("name", list(LOSSES))
@settings(max_examples=10)
@given(data=st.data())
def test_gradient_flows_through_the_updated_policy_alone(name: str, data: st.DataObject) -> None:
    """The loss's value may depend on any tensor, but it is differentiated in `new` only."""
    ratios = data.draw(st.lists(st.floats(0.5, 2), min_size=2, max_size=4))
    scored = scored_tokens(ratios, [1.0, -1.0] * (len(ratios) // 2) + [0.5] * (len(ratios) % 2))
    others = ("old", "trainer", "behaviour", "advantages", "entropy")
    out = LOSSES[name](scored)
    assert all(not getattr(scored, other).requires_grad for other in others)
    (grad,) = torch.autograd.grad(out.loss.sum(), [scored.new])
    assert torch.isfinite(grad).all()
    assert not out.clipped.requires_grad


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_token_a_thousand_nats_off_gives_a_finite_loss(name: str) -> None:
    scored = scored_tokens([1.0, 1.0], [-1.0, -1.0], [0, 1])
    new = torch.tensor([-1000.0, -0.1], dtype=torch.float64, requires_grad=True)
    old = tensor([-0.1, -1000.0])
    out = LOSSES[name](scored._replace(new=new, old=old, trainer=old, behaviour=old))
    out.loss.sum().backward()
    assert new.grad is not None
    assert torch.isfinite(out.loss).all()
    assert torch.isfinite(new.grad).all()
