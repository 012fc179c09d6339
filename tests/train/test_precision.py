"""Loss scaling: what it must not change, the layer that overflowed, and what a checkpoint keeps."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.batch.packing import Batch, make_batch
from rltrain.config.algo import AlgoConfig, TrainConfig
from rltrain.config.precision import PrecisionConfig, ScaleConfig
from rltrain.errors import RltrainError
from rltrain.train.checkpoint import save_checkpoint
from rltrain.train.learner import PolicyLearner
from rltrain.train.objective import Objective
from rltrain.train.overflow import Overflow
from rltrain.train.precision import Fp32Head
from rltrain.train.restore import restore
from rltrain.train.scaling import LARGEST, LossScaler
from rltrain.warmup.tokenizer import train_tokenizer
from tests.makers import random_families, tiny_policy

RENDERER = SimpleNamespace(tokenizer=train_tokenizer(["tag = 'vip'"], 300, 64))


def learner_of(compute: str = "fp16", model: Any = None, **scale: float) -> PolicyLearner:
    precision = PrecisionConfig.model_validate({"compute": compute, "scale": scale})
    objective = Objective.from_config(AlgoConfig(), 0.8)
    return PolicyLearner(model or tiny_policy(), objective, TrainConfig(lr=1e-2), 10, precision)


def batch_of(seed: int = 0) -> Batch:
    samples = random_families(seed)
    return make_batch(samples, AGGREGATIONS["token_mean"], horizon=11, limit=40)


def gradients(learner: PolicyLearner) -> dict[str, Tensor]:
    """What the optimizer would get: the gradients of a batch, unscaled."""
    batch = batch_of()
    for micro in batch.micro_batches:
        learner._backward(micro, None, None, batch.tokens)
    learner.precision.scaler.unscale(learner.parameters)
    return {k: p.grad.clone() for k, p in learner.model.named_parameters() if p.grad is not None}


def test_gradients_do_not_depend_on_the_loss_scale() -> None:
    """Powers of two are exact until something vanishes or overflows: in fp32 bit for bit."""
    plain = gradients(learner_of("fp32"))
    halves = [gradients(learner_of(init=2.0**power)) for power in (8, 12)]
    for name, wanted in plain.items():
        torch.testing.assert_close(halves[0][name], halves[1][name], rtol=1e-3, atol=1e-6)
        assert (halves[1][name] - wanted).norm() < 0.02 * wanted.norm() + 1e-6, name
    scaled = learner_of("fp32")
    scaled.precision.scaler = LossScaler(ScaleConfig(init=2.0**9))
    assert all(torch.equal(grad, plain[name]) for name, grad in gradients(scaled).items())


def test_without_scaling_small_gradients_vanish_in_fp16() -> None:
    """What the scale is for: a loss of 1e-6 of its size still has its gradient."""

    def size(init: float) -> float:
        learner = learner_of(init=init)
        hidden = learner.model.model.layers[0].mlp.down_proj
        hidden.register_full_backward_hook(lambda m, gi, go: (gi[0] * 1e-6,))
        return float(gradients(learner)["model.layers.0.mlp.up_proj.weight"].norm())

    assert size(2.0**-10) == 0
    assert size(2.0**14) > 0


def amplified(learner: PolicyLearner, layer: Any, factor: float) -> None:
    """Have what flows back out of a layer's output be `factor` times as large."""
    layer.register_forward_hook(lambda m, i, out: _Amplified.apply(out, factor))


class _Amplified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


@pytest.mark.parametrize("number", [0, 1])
def test_the_layer_whose_gradient_overflowed_is_named_and_the_scale_recovers(number: int) -> None:
    learner = learner_of()
    found: list[Overflow] = []
    learner.precision.tell = found.append
    amplified(learner, learner.model.model.layers[number].self_attn.v_proj, 2.0**8)
    before = {k: p.detach().clone() for k, p in learner.model.named_parameters()}
    stats = learner.step(batch_of())
    assert not math.isfinite(stats.grad_norm)
    assert stats.metrics["train/skipped"] == stats.metrics["precision/overflows"] == 1
    assert all(torch.equal(p, before[k]) for k, p in learner.model.named_parameters())
    assert found[0].first == f"model.layers.{number}.self_attn.v_proj.weight"
    assert "v_proj.weight overflowed first (loss scale 65536)" in found[0].sentence()
    later = [f"model.layers.{n}." for n in range(number + 1, 2)]  # nearer the loss: untouched
    assert not [n for n in found[0].names if n.startswith(tuple(later)) or n == "model.norm.weight"]
    for step in range(1, 12):
        stats = learner.step(batch_of(step))
        if math.isfinite(stats.grad_norm):
            break
    assert math.isfinite(stats.grad_norm)
    assert stats.metrics["precision/loss_scale"] == 2.0 ** (16 - len(found)) < 2.0**16
    assert not all(torch.equal(p, before[k]) for k, p in learner.model.named_parameters())


def test_the_scale_goes_below_one_and_an_overflow_at_its_floor_stops_with_the_layer() -> None:
    learner = learner_of(init=2.0, floor=0.25)
    amplified(learner, learner.model.model.layers[1].mlp.down_proj, math.inf)
    for wanted in (1.0, 0.5, 0.25):
        assert learner.step(batch_of()).metrics["precision/loss_scale"] == wanted
    with pytest.raises(RltrainError, match=r"floor=0.25, first that of model.layers.1.mlp.down_"):
        learner.step(batch_of())


def test_the_scale_by_hand() -> None:
    scaler = LossScaler(ScaleConfig(init=4.0, growth_interval=2, backoff=0.25, floor=0.5))
    seen = []
    for finite in (True, True, True, False, True, True, False, False):
        possible = scaler.update(finite=finite)
        seen.append((scaler.value, possible))
    assert [value for value, _ in seen] == [4, 8, 8, 2, 2, 4, 1, 0.5]
    assert all(possible for _, possible in seen)
    assert scaler.overflows == 3
    assert not scaler.update(finite=False)
    high = LossScaler(ScaleConfig(init=LARGEST, growth_interval=1))
    high.update(finite=True)
    assert high.value == LARGEST


def test_the_scaler_goes_on_after_a_resume(tmp_path: Path) -> None:
    whole = learner_of(growth_interval=3)
    amplified(whole, whole.model.model.layers[0].mlp.down_proj, 2.0**4)
    for step in range(6):
        whole.step(batch_of(step))
    state = (whole.precision.scaler.value, whole.precision.scaler.quiet)
    assert whole.precision.scaler.overflows > 0 and state[0] < 2.0**16
    save_checkpoint(tmp_path / "step-00006", whole, RENDERER, 6)
    second = learner_of(growth_interval=3)
    amplified(second, second.model.model.layers[0].mlp.down_proj, 2.0**4)
    restore(tmp_path / "step-00006", second)
    assert (second.precision.scaler.value, second.precision.scaler.quiet) == state
    for step in range(6, 9):
        first, again = whole.step(batch_of(step)), second.step(batch_of(step))
        first, again = ({**s.metrics, "norm": s.grad_norm} for s in (first, again))
        assert again == pytest.approx(first, abs=0, nan_ok=True)


def test_an_fp32_head_gives_what_fp32_gives_and_trains() -> None:
    """Of the head alone: the hidden states are those of bf16."""
    torch.manual_seed(0)
    head = torch.nn.Linear(32, 48, bias=False)
    hidden = torch.randn(5, 32)
    model = SimpleNamespace(get_output_embeddings=lambda: head)
    from rltrain.train.precision import set_head

    set_head(model, PrecisionConfig(compute="bf16", head="fp32"))
    assert isinstance(head, Fp32Head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = head(hidden)
    assert out.dtype == torch.float32
    assert torch.equal(out, hidden @ head.weight.bfloat16().float().T)
    out.sum().backward()
    assert torch.allclose(head.weight.grad, hidden.sum(0).expand(48, 32), atol=1e-5)


def test_the_loss_of_the_fp32_head_is_its_own_and_every_weight_moves() -> None:
    losses = {}
    for head in ("compute", "fp32"):
        precision = PrecisionConfig.model_validate({"compute": "bf16", "head": head})
        objective = Objective.from_config(AlgoConfig(), 0.8)
        model = tiny_policy()
        before = {k: p.detach().clone() for k, p in model.named_parameters()}
        learner = PolicyLearner(model, objective, TrainConfig(lr=1e-2), 10, precision)
        losses[head] = learner.step(batch_of()).loss
        assert not any(torch.equal(p, before[k]) for k, p in model.named_parameters())
    assert losses["fp32"] != losses["compute"]
