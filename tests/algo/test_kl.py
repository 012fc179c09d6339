"""What every KL term really does to the gradient, by enumerating all answers of a tiny policy.

The policy writes two tokens of three: logits [3] for the first and [3, 3] for the second given the
first. Expectations are exact sums over the nine answers, weighted by the policy that samples; the
gradient of what the learner would minimise is compared with autograd's of the divergence itself.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rltrain.algo.kl import KL, penalty, to_go
from rltrain.algo.scored import Scored
from tests.algo.scored_tokens import scored_tokens, tensor

SYMBOLS = 3
ANSWERS = [(a, b) for a in range(SYMBOLS) for b in range(SYMBOLS)]
Logits = tuple[Tensor, Tensor]


def policy(seed: int, requires_grad: bool = False) -> Logits:
    g = torch.Generator().manual_seed(seed)
    shapes = ((SYMBOLS,), (SYMBOLS, SYMBOLS))
    first, second = (torch.randn(s, generator=g, dtype=torch.float64) for s in shapes)
    return first.requires_grad_(requires_grad), second.requires_grad_(requires_grad)


def logprobs(logits: Logits) -> Tensor:
    """log-probability of both tokens of each answer, end to end: [18]."""
    first, second = (x.log_softmax(-1) for x in logits)
    return torch.stack([v for a, b in ANSWERS for v in (first[a], second[a, b])])


def chance(logits: Logits) -> Tensor:
    """Probability of each answer's sequence, once per token: [18]."""
    return logprobs(logits).view(-1, 2).sum(1).exp().repeat_interleave(2)


def scored(pi: Logits, old: Logits, ref: Logits) -> Scored:
    with torch.no_grad():
        old_N, ref_N = logprobs(old), logprobs(ref)
    return Scored(
        new=logprobs(pi),
        old=old_N,
        trainer=old_N,
        behaviour=old_N,
        advantages=torch.zeros(18, dtype=torch.float64),
        seq=torch.arange(9).repeat_interleave(2),
        sequences=9,
        entropy=torch.zeros(18, dtype=torch.float64),
        reference=ref_N,
    )


def gradient(value: Tensor, pi: Logits) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, pi)])


def per_token(pi: Logits, ref: Logits, visited: Tensor, forward: bool = False) -> Tensor:
    """sum over tokens of E_visited[KL of the next token], the states visited held fixed."""
    values = []
    for x, y in zip(pi, ref, strict=True):
        p, q = x.log_softmax(-1), y.log_softmax(-1)
        p, q = (q, p) if forward else (p, q)
        values.append((p.exp() * (p - q)).sum(-1))
    of_first = visited.view(SYMBOLS, SYMBOLS, 2)[..., 0].sum(1)
    return values[0] + (of_first * values[1]).sum()


def sequence_kl(pi: Logits, ref: Logits) -> Tensor:
    return per_token(pi, ref, chance(pi))


@pytest.fixture(name="pi")
def _pi() -> Logits:
    return policy(1, requires_grad=True)


@pytest.fixture(name="ref")
def _ref() -> Logits:
    return policy(2)


def in_the_loss(name: str, pi: Logits, old: Logits, ref: Logits) -> Tensor:
    with torch.no_grad():
        weight = chance(old)
    return gradient((weight * KL[name](scored(pi, old, ref))).sum(), pi)


def in_the_reward(
    name: str, pi: Logits, ref: Logits, credit: Callable[[Tensor, Scored], Tensor]
) -> Tensor:
    """The policy gradient when each token costs `credit` of the detached estimates."""
    s = scored(pi, pi, ref)
    cost = credit(penalty(KL[name], s), s)
    return gradient((chance(pi).detach() * cost * s.new).sum(), pi)


def rest_of_answer(values: Tensor, s: Scored) -> Tensor:
    return to_go(values, s.seq, s.sequences)


def own_place(values: Tensor, s: Scored) -> Tensor:
    return values


def test_every_estimator_is_tested_here() -> None:
    assert set(KL) == {"k1", "k2", "k3", "k3_is"}


@pytest.mark.parametrize("name", ["k1", "k3", "k3_is"])
def test_as_numbers_all_but_k2_are_unbiased_on_policy(name: str, pi: Logits, ref: Logits) -> None:
    values = KL[name](scored(pi, pi, ref))
    assert (chance(pi) * values).sum().item() == pytest.approx(sequence_kl(pi, ref).item())


def test_k1_in_the_loss_does_nothing(pi: Logits, ref: Logits) -> None:
    assert in_the_loss("k1", pi, pi, ref).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["k2", "k3_is"])
def test_k2_and_corrected_k3_in_the_loss_are_reverse_kl(name: str, pi: Logits, ref: Logits) -> None:
    expected = gradient(per_token(pi, ref, chance(pi).detach()), pi)
    torch.testing.assert_close(in_the_loss(name, pi, pi, ref), expected)
    assert expected.abs().max() > 0.1


def test_k3_in_the_loss_is_forward_kl(pi: Logits, ref: Logits) -> None:
    found = in_the_loss("k3", pi, pi, ref)
    visited = chance(pi).detach()
    torch.testing.assert_close(found, gradient(per_token(pi, ref, visited, forward=True), pi))
    reverse = gradient(per_token(pi, ref, visited), pi)
    assert (found - reverse).abs().max() > 0.05  # another gradient, not a noisier one


def test_corrected_k3_is_reverse_kl_off_policy_too_and_k2_is_not(pi: Logits, ref: Logits) -> None:
    old = policy(3)
    expected = gradient(per_token(pi, ref, chance(old)), pi)
    torch.testing.assert_close(in_the_loss("k3_is", pi, old, ref), expected)
    assert (in_the_loss("k2", pi, old, ref) - expected).abs().max() > 0.1


def test_k1_in_the_reward_to_go_is_the_gradient_of_the_sequences_kl(
    pi: Logits, ref: Logits
) -> None:
    expected = gradient(sequence_kl(pi, ref), pi)
    torch.testing.assert_close(in_the_reward("k1", pi, ref, rest_of_answer), expected)


def test_a_loss_term_holds_the_earlier_tokens_fixed(pi: Logits, ref: Logits) -> None:
    """k2 in the loss = k1 in the reward of a token's own place; neither is the sequence's KL."""
    own = in_the_reward("k1", pi, ref, own_place)
    torch.testing.assert_close(in_the_loss("k2", pi, pi, ref), own)
    assert (own - gradient(sequence_kl(pi, ref), pi)).abs().max() > 0.01


def test_k2_and_k3_in_the_reward_are_biased_as_the_docstring_says(pi: Logits, ref: Logits) -> None:
    visited = chance(pi).detach()
    reverse = gradient(per_token(pi, ref, visited), pi)
    forward = gradient(per_token(pi, ref, visited, forward=True), pi)
    for name in ("k3", "k3_is"):
        torch.testing.assert_close(in_the_reward(name, pi, ref, own_place), reverse - forward)
    expected_k2 = 0.0
    for x, y, states in zip(pi, ref, (torch.ones(1), visited.view(3, 3, 2)[..., 0].sum(1)),
                            strict=True):  # fmt: skip
        p, q = x.log_softmax(-1), y.log_softmax(-1)
        expected_k2 = expected_k2 + (states * (p.exp() * (p - q) ** 2 / 2).sum(-1)).sum()
    assert isinstance(expected_k2, Tensor)
    found = in_the_reward("k2", pi, ref, own_place)
    torch.testing.assert_close(found, gradient(expected_k2, pi) - reverse)


def test_estimates_by_hand() -> None:
    # pi = 0.5, ref = 0.25 (x = -ln 2) and pi = 0.25, ref = 0.5 (x = ln 2); pi / pi_old = 2, 1.
    s = scored_tokens([2.0, 1.0], [0.0, 0.0], old=0.25, reference=[0.25, 0.5])
    ln2 = 0.6931471805599453
    assert KL["k1"](s).tolist() == pytest.approx([ln2, -ln2])
    assert KL["k2"](s).tolist() == pytest.approx([ln2**2 / 2] * 2)
    assert KL["k3"](s).tolist() == pytest.approx([ln2 - 0.5, 1 - ln2])
    assert KL["k3_is"](s).tolist() == pytest.approx([2 * (ln2 - 0.5), 1 - ln2])
    # The penalty is measured before the update: there pi = pi_old = 0.25, so x = 0 and ln 2.
    assert penalty(KL["k3_is"], s).tolist() == pytest.approx([0.0, 1 - ln2])


def test_to_go_by_hand_with_an_empty_sequence() -> None:
    values = tensor([1.0, 2.0, 4.0, 8.0])
    assert to_go(values, torch.tensor([0, 0, 2, 2]), 3).tolist() == [3.0, 2.0, 12.0, 8.0]
