"""Losses whose trust region is not PPO's clip, worked by hand (see test_losses for the laws)."""

from __future__ import annotations

import math

import pytest
import torch

from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.algo.losses import LOSSES
from tests.algo.scored_tokens import scored_tokens
from tests.algo.test_losses import backward, run


def test_sapo_fades_with_the_distance_from_one_and_faster_for_bad_tokens() -> None:
    # Good: 4 sigmoid(2 (1.5 - 1)) / 2 = 2 sigmoid(1) = 1.4621172; bad: sigmoid(0.5) = 0.6224593.
    out, grad = run("sapo", [1.5, 1.5], [1.0, -1.0], tau_pos=2.0, tau_neg=1.0)
    assert out.loss.tolist() == pytest.approx([-1.4621172, 4 * 0.6224593])
    # d/dlog pi = 4 sigmoid' r: sigmoid'(1) = 0.1966119, sigmoid'(0.5) = 0.2350037.
    assert grad == pytest.approx([-4 * 0.1966119 * 1.5, 4 * 0.2350037 * 1.5], rel=1e-6)
    assert out.clipped.tolist() == [0, 0]


def test_dppo_tv_measures_how_far_the_probability_moved() -> None:
    # pi_old 0.5, 0.5, 0.5, 0.001; pi 0.75, 0.65, 0.25, 0.003.
    scored = scored_tokens([1.5, 1.3, 0.5, 3.0], [1.0, 1.0, -1.0, 1.0], old=[0.5, 0.5, 0.5, 0.001])
    out, grad = backward("dppo_tv", scored, low=0.2, high=0.2)
    # The rare token tripled and is kept: it moved by 0.002 only.
    assert out.clipped.tolist() == [1, 0, 1, 0]
    assert grad == pytest.approx([0.0, -1.3, 0.0, -3.0])
    assert out.loss[1].item() == pytest.approx(-1.3 * math.log(0.65))


def test_dppo_tv_masks_only_what_moved_in_the_direction_of_its_advantage() -> None:
    scored = scored_tokens([0.5, 1.5], [1.0, -1.0], old=0.5)  # both moved by 0.25, both back
    out, grad = backward("dppo_tv", scored, low=0.1, high=0.1)
    assert out.clipped.tolist() == [0, 0]
    assert grad == pytest.approx([-0.5, 1.5])


def test_dppo_caps_the_weight_and_keeps_the_gradient() -> None:
    scored = scored_tokens([50.0], [-1.0], old=0.001)
    _, grad = backward("dppo_tv", scored, ratio_cap=20.0)
    assert grad == pytest.approx([20.0])


def test_dppo_kl_bounds_the_divergence_of_this_token_against_all_others() -> None:
    # o = 0.5, p = 0.75: 0.5 ln(2/3) + 0.5 ln 2 = 0.1438410.  o = 0.5, p = 0.25: the same by
    # symmetry.  o = 0.5, p = 0.6: 0.5 ln(5/6) + 0.5 ln(5/4) = 0.0204110.
    ratios = [1.5, 0.5, 0.5, 1.2]
    scored = scored_tokens(ratios, [1.0, -1.0, 1.0, 1.0], old=0.5)
    out, grad = backward("dppo_kl", scored, low=0.05, high=0.05)
    assert out.clipped.tolist() == [1, 1, 0, 0]  # the third moved against its advantage
    assert grad == pytest.approx([0.0, 0.0, -0.5, -1.2])
    wide, _ = backward("dppo_kl", scored_tokens(ratios, [1.0] * 4, old=0.5), high=0.1439)
    assert wide.clipped.tolist() == [0, 0, 0, 0]
    tight, _ = backward("dppo_kl", scored_tokens(ratios, [1.0] * 4, old=0.5), high=0.1438)
    assert tight.clipped.tolist() == [1, 0, 0, 0]


def test_dppo_kl_of_a_certain_token_is_finite() -> None:
    out, _ = backward("dppo_kl", scored_tokens([1.0, 0.5], [1.0, -1.0], old=1.0))
    assert torch.isfinite(out.loss).all()
    assert out.clipped.tolist() == [0, 1]


def test_gmpo_clips_log_ratios_on_one_side_and_takes_their_mean() -> None:
    # Good sequence: log r 0.6 -> 0.4, -0.8 stays; mean -0.2. Bad: 0.6 stays, -0.8 -> -0.4; 0.1.
    ratios = [math.exp(0.6), math.exp(-0.8)] * 2
    out, grad = run("gmpo", ratios, [2.0, 2.0, -1.0, -1.0], [0, 0, 1, 1])
    good, bad = math.exp(-0.2), math.exp(0.1)
    assert out.loss.tolist() == pytest.approx([-2 * good, -2 * good, bad, bad])
    assert grad == pytest.approx([0.0, -2 * good, bad, 0.0])
    assert out.clipped.tolist() == [1, 0, 0, 1]


def test_gmpo_averaged_over_tokens_is_the_gradient_of_the_geometric_mean() -> None:
    ratios = [1.3, 0.9, 2.5]
    _, grad = run("gmpo", ratios, [0.6] * 3)
    new = scored_tokens(ratios, [0.6] * 3).new
    log = new - math.log(0.25)
    (-0.6 * torch.minimum(log, log.clamp(max=0.4)).mean().exp()).backward()
    assert new.grad is not None
    assert [g / 3 for g in grad] == pytest.approx(new.grad.tolist())


def test_luspo_is_gspo_summed_over_tokens_instead_of_averaged() -> None:
    # Sequences of 2 tokens and 1, ratio exp(0.05) and exp(0.3) clipped at 1.1 (see test_losses):
    # sum over tokens, mean over sequences = -(2 exp(0.05) + 1.1) / 2.
    ratios = [math.exp(0.2), math.exp(-0.1), math.exp(0.3)]
    out, _ = run("gspo", ratios, [1.0] * 3, [0, 0, 1], clip_low=0.1, clip_high=0.1)
    weights = torch.tensor(AGGREGATIONS["sequence_sum"]([2, 1], 3, 2, 8))[torch.tensor([0, 0, 1])]
    assert (out.loss * weights).sum().item() == pytest.approx(-(2 * math.exp(0.05) + 1.1) / 2)


def test_vespo_weighs_by_a_gamma_density_of_the_sequences_ratio_to_the_engine() -> None:
    # Sequence 0: pi/old = 1.5, 0.5 and old/mu = 2, 1: W = 1.5, phi = W^2 exp(3 (1 - W)).
    # Sequence 1: A < 0, W = 0.8: phi = W^3 exp(2 (1 - W)).
    scored = scored_tokens([1.5, 0.5, 0.8], [1.0, 1.0, -1.0], [0, 0, 1], rho=[2.0, 1.0, 1.0])
    out, grad = backward("vespo", scored)
    good, bad = 1.5**2 * math.exp(-1.5), 0.8**3 * math.exp(0.4)
    assert grad == pytest.approx([-good, -good, bad])
    assert out.loss[0].item() == pytest.approx(-good * math.log(0.25 * 1.5))


def test_clip_cov_leaves_out_tokens_of_high_covariance_that_ppo_keeps() -> None:
    # mean A = 0, log r = -3, 0, 0, 3 with mean 0: cov = 3, 0, 0, 3. Ratios e^-3 and e^3: the last
    # is clipped by PPO (A > 0), so only the first token is a candidate.
    ratios, advantages = [math.exp(-3), 1.0, 1.0, math.exp(3)], [-1.0, 0.0, 0.0, 1.0]
    out, grad = run("clip_cov", ratios, advantages, share=1.0, clip_low=0.99)
    assert grad == [0.0, 0.0, 0.0, 0.0]
    assert out.clipped.tolist() == [1, 0, 0, 1]
    kept, grad = run("clip_cov", ratios, advantages, share=1.0, clip_low=0.99, cov_low=4.0)
    assert kept.clipped.tolist() == [0, 0, 0, 1]
    assert grad[0] == pytest.approx(math.exp(-3))


def test_clip_cov_leaves_out_the_asked_share_on_average() -> None:
    # 40 tokens of which 20 are candidates (cov = 2): 0.1 * 40 = 4 of them each time; and with a
    # share of 1 / 80 half a token, so one in about every second call.
    torch.manual_seed(0)
    half = [math.exp(-2)] * 20
    scored = scored_tokens([*half, *[1.0] * 20], [-1.0] * 20 + [1.0] * 20)
    counts = [int(LOSSES["clip_cov"](scored, share=0.1, clip_low=0.9, cov_low=0.5).clipped.sum())
              for _ in range(5)]  # fmt: skip
    assert counts == [4] * 5
    few = [float(LOSSES["clip_cov"](scored, share=1 / 80, clip_low=0.9, cov_low=0.5).clipped.sum())
           for _ in range(200)]  # fmt: skip
    assert set(few) == {0.0, 1.0}
    assert 0.35 < sum(few) / 200 < 0.65  # four standard deviations


def test_kl_cov_holds_only_the_tokens_of_highest_covariance() -> None:
    # log r = ln 2, 0, -ln 2 of mean 0, A = 2, 0, -1 of mean 1/3: cov = 5/3 ln 2, 0, 4/3 ln 2.
    out, grad = run("kl_cov", [2.0, 1.0, 0.5], [2.0, 0.0, -1.0], share=0.34, coef=0.5)
    assert out.loss.tolist() == pytest.approx([-4 + 0.5 * math.log(2), 0.0, 0.5])
    assert grad == pytest.approx([-4 + 0.5, 0.0, 0.5])


def test_aspo_pulls_up_good_tokens_that_fell_behind_harder_than_ppo() -> None:
    out, grad = run("aspo", [0.5, 0.1, 1.1, 1.3], [1.0] * 4)
    assert grad == pytest.approx([-2.0, -3.0, -1 / 1.1, 0.0])  # 1 / 0.1 is capped at 3
    assert out.clipped.tolist() == [0, 0, 0, 1]
    bad, grad = run("aspo", [0.5, 0.9, 1.3], [-1.0] * 3)
    assert grad == pytest.approx([0.0, 0.9, 1.3])  # as PPO
    assert bad.clipped.tolist() == [1, 0, 0]
