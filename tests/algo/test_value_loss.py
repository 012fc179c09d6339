"""The critic's loss, worked by hand, and against plain squares on random values."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rltrain.algo.value_loss import value_loss


@pytest.mark.parametrize(
    ("value", "returned", "loss", "clipped", "slope"),
    [
        # v_old = 0.5, clip 0.2. Inside the range both squares are (0.6 - 2)^2 = 1.96.
        (0.6, 2.0, 0.98, 0.0, -1.4),
        # Past it towards the return: plain (1 - 2)^2 = 1, clipped (0.7 - 2)^2 = 1.69, no gradient.
        (1.0, 2.0, 0.845, 1.0, 0.0),
        # Past it away from the return: plain (1 - 0)^2 = 1, clipped 0.7^2 = 0.49; pulled back.
        (1.0, 0.0, 0.5, 0.0, 1.0),
    ],
)
def test_the_value_loss_worked_by_hand(
    value: float, returned: float, loss: float, clipped: float, slope: float
) -> None:
    value_N = torch.tensor([value], requires_grad=True)
    out = value_loss(value_N, torch.tensor([0.5]), torch.tensor([returned]), 0.2)
    torch.autograd.backward(out.loss.sum())
    assert value_N.grad is not None
    assert (float(out.loss.detach()), float(out.clipped)) == pytest.approx((loss, clipped))
    assert float(value_N.grad) == pytest.approx(slope)


def test_without_a_range_the_value_loss_is_half_the_square() -> None:
    # 0.5 (3 - 1)^2 = 2, however far the value moved.
    out = value_loss(torch.tensor([3.0]), torch.tensor([0.0]), torch.tensor([1.0]), 0.0)
    assert (float(out.loss), float(out.clipped)) == (2.0, 0.0)


numbers = st.floats(-3, 3, width=32)


@settings(deadline=None)  # a busy machine is no failure
@given(numbers, numbers, numbers, st.floats(0.0625, 1, width=32))
def test_clipping_never_lowers_the_loss_and_ends_no_gradient_within_the_range(
    value: float, old: float, returned: float, clip: float
) -> None:
    v, o, r = (torch.tensor([x]) for x in (value, old, returned))
    plain, held = value_loss(v, o, r, 0.0), value_loss(v, o, r, clip)
    assert float(held.loss) >= float(plain.loss) - 1e-5
    if abs(value - old) < clip - 1e-5:
        assert float(held.loss) == pytest.approx(float(plain.loss), abs=1e-5)
