"""Corrections for trainer/engine mismatch, by hand."""

from __future__ import annotations

import math
from inspect import signature

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rltrain.algo.corrections import CORRECTIONS, WEIGHING, combined
from rltrain.algo.scored import Scored
from rltrain.errors import UserError
from tests.algo.scored_tokens import scored_tokens, tensor

SEQ = [0, 0, 1]


def tokens(rho: list[float], seq: list[int], advantages: list[float] | None = None) -> Scored:
    """On-policy tokens with these ratios pi_old / mu."""
    return scored_tokens([1.0] * len(rho), advantages or [1.0] * len(rho), seq, rho=rho)


def weights(name: str, rho: list[float], seq: list[int], **args: float) -> list[float]:
    return CORRECTIONS[name](tokens(rho, seq), **args).tolist()


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("none", {}, [1, 1, 1]),
        ("token_tis", {"cap": 2.0}, [2, 0.5, 1.5]),
        ("sequence_tis", {"cap": 1.75}, [1.75, 1.75, 1.5]),  # products 4 * 0.5 = 2 and 1.5
        ("token_mis", {"cap": 3.0}, [0, 0.5, 1.5]),
        ("token_mis", {"cap": 4.5}, [4, 0.5, 1.5]),
        ("sequence_mis", {"cap": 1.75}, [0, 0, 1.5]),
        ("sequence_mis", {"cap": 2.5}, [2, 2, 1.5]),
        ("icepop", {"low": 0.6, "high": 5.0}, [4, 0, 1.5]),
        ("icepop", {"low": 0.4, "high": 3.0}, [0, 0.5, 1.5]),
        (
            "geometric_rejection",
            {"mean_low": 0.5, "mean_high": 1.45},
            [1, 1, 0],
        ),  # means sqrt(2), 1.5
        ("geometric_rejection", {"mean_low": 1.45, "mean_high": 1.55}, [0, 0, 1]),
        # k3 = 3 - ln 4 = 1.61371 and ln 2 - 0.5 = 0.19315, mean 0.90343; 0.5 - ln 1.5 = 0.09453.
        ("k3_rejection", {"max_nats": 0.5}, [0, 0, 1]),
        ("k3_rejection", {"max_nats": 0.9035}, [1, 1, 1]),
        ("k3_rejection", {"max_nats": 0.09}, [0, 0, 0]),
        ("veto", {"floor": 0.49}, [1, 1, 1]),
        ("veto", {"floor": 0.51}, [0, 0, 1]),
    ],
)
def test_weights_by_hand(name: str, args: dict[str, float], expected: list[float]) -> None:
    assert weights(name, [4.0, 0.5, 1.5], SEQ, **args) == pytest.approx(expected)


def test_every_correction_is_tested_here() -> None:
    assert set(CORRECTIONS) == {
        "none", "token_tis", "sequence_tis", "token_mis", "sequence_mis", "icepop",
        "geometric_rejection", "k3_rejection", "veto", "opsm",
    }  # fmt: skip


def test_opsm_leaves_out_bad_answers_that_the_policy_has_left_behind() -> None:
    # mean log(mu / pi): sequence 0 (ln 4 + ln 1) / 2 = 0.693; sequence 1 ln 1.5 = 0.405.
    scored = scored_tokens([1.0] * 3, [-1.0] * 3, SEQ, rho=[0.25, 1.0, 1 / 1.5])
    assert CORRECTIONS["opsm"](scored, delta=0.5).tolist() == [0, 0, 1]
    assert CORRECTIONS["opsm"](scored, delta=0.7).tolist() == [1, 1, 1]
    good = scored._replace(advantages=tensor([1.0, 1.0, 1.0]))
    assert CORRECTIONS["opsm"](good, delta=0.1).tolist() == [1, 1, 1]


def test_opsm_sees_this_steps_own_drift_too() -> None:
    drifted = scored_tokens([0.5, 0.5], [-1.0, -1.0])  # pi / pi_old; the engine agreed with pi_old
    assert CORRECTIONS["opsm"](drifted, delta=0.69).tolist() == [0, 0]  # ln 2 = 0.693
    assert CORRECTIONS["opsm"](drifted, delta=0.70).tolist() == [1, 1]


@pytest.mark.parametrize("name", list(CORRECTIONS))
def test_an_engine_that_agrees_exactly_is_given_weight_one(name: str) -> None:
    assert weights(name, [1.0, 1.0, 1.0], SEQ) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", list(CORRECTIONS))
@settings(max_examples=25)
@given(rho=st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3))
def test_weights_are_finite_never_negative_and_binary_unless_they_weigh(
    name: str, rho: list[float]
) -> None:
    found = weights(name, rho, SEQ)
    assert all(0 <= w < math.inf for w in found)
    if name not in WEIGHING:
        assert set(found) <= {0.0, 1.0}


@pytest.mark.parametrize("name", list(CORRECTIONS))
def test_from_the_engines_own_policy_only_the_decisions_are_left(name: str) -> None:
    """`proximal=behaviour`: pi_old = mu, so every weight that is kept is 1, while masks still look
    at the trainer: a product of 1e6 over sequence 0."""
    scored = tokens([1e3, 1e3, 1.0], SEQ)
    found = CORRECTIONS[name](scored._replace(old=scored.behaviour)).tolist()
    masks = {"token_mis", "icepop", "sequence_mis", "geometric_rejection", "k3_rejection"}
    assert found == ([0, 0, 1] if name in masks else [1, 1, 1])


def test_several_corrections_multiply_and_each_takes_its_own_arguments() -> None:
    both = combined(("token_tis", "veto"), {"cap": 3.0, "floor": 0.51})
    assert both(tokens([4.0, 0.5, 1.5], SEQ)).tolist() == pytest.approx([0, 0, 1.5])
    assert both(tokens([4.0, 0.6, 1.5], SEQ)).tolist() == pytest.approx([3, 0.6, 1.5])


def test_a_ratio_counted_twice_and_an_unknown_argument_are_refused() -> None:
    with pytest.raises(UserError, match="token_tis and sequence_mis both weigh"):
        combined(("token_tis", "sequence_mis"), {})
    with pytest.raises(UserError, match=r"cpa is no argument of token_tis \(cap\); veto \(floor\)"):
        combined(("token_tis", "veto"), {"cpa": 1.0})


def test_corrections_that_may_be_combined_share_no_argument() -> None:
    def arguments(name: str) -> set[str]:
        return set(signature(CORRECTIONS[name]).parameters) - {"scored"}

    masks = [arguments(name) for name in CORRECTIONS if name not in WEIGHING]
    weighing = set().union(*(arguments(name) for name in WEIGHING))
    assert sum(map(len, [*masks, weighing])) == len(set().union(*masks, weighing))


@pytest.mark.parametrize("name", list(CORRECTIONS))
def test_a_correction_carries_no_gradient(name: str) -> None:
    scored = tokens([2.0, 0.5, 1.0], SEQ, [-1.0, -1.0, 1.0])
    assert scored.new.requires_grad
    assert not CORRECTIONS[name](scored).requires_grad
    assert isinstance(CORRECTIONS[name](scored), torch.Tensor)
