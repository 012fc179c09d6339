"""Digests and the probe's judgement, without an engine."""

from __future__ import annotations

import math

import torch

from rltrain.sync.digest import difference, digests, tensor_digest
from rltrain.sync.probe import compare
from rltrain.sync.tensors import full_tensors


def test_a_digest_depends_on_bytes_shape_and_dtype() -> None:
    x = torch.arange(6, dtype=torch.float32)
    other = {
        tensor_digest(x.reshape(2, 3)),
        tensor_digest(x.view(torch.int32)),
        tensor_digest(torch.nextafter(x, x + 1)),
    }
    assert tensor_digest(x) == tensor_digest(x.clone())
    assert len(other | {tensor_digest(x)}) == 4


def test_a_digest_sees_values_not_strides_in_every_precision() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        x = torch.randn(5, 3).to(dtype)
        assert tensor_digest(x.t()) == tensor_digest(x.t().contiguous())
    assert tensor_digest(torch.zeros(())) != tensor_digest(torch.zeros(0))


def test_the_first_difference_is_named() -> None:
    sent = digests({"a": torch.zeros(2), "b": torch.ones(2), "c": torch.ones(3)})
    assert difference(sent, dict(sent)) is None
    assert "b arrived altered" in str(difference(sent, {**sent, "b": "0", "c": "0"}))
    assert difference(sent, {"a": sent["a"], "c": sent["c"]}) == "b did not arrive"
    assert difference(sent, {**sent, "z": "0"}) == "z arrived and was never sent"


def test_the_probe_tells_a_stale_engine_from_a_fresh_one_below_the_tolerance() -> None:
    old, new = [-1.0, -2.0, -3.0], [-1.0 - 1e-4, -2.0 + 1e-4, -3.0 - 1e-4]
    noise = [1e-6, -1e-6, 1e-6]
    fresh = [a + b for a, b in zip(new, noise, strict=True)]
    stale = [a + b for a, b in zip(old, noise, strict=True)]
    assert compare(new, fresh, 1e-3, old).problem is None
    assert "previous weights" in str(compare(new, stale, 1e-3, old).problem)


def test_the_probe_does_not_guess_when_noise_hides_the_step() -> None:
    old, new = [-1.0, -2.0], [-1.0 - 1e-7, -2.0 + 1e-7]
    assert compare(new, [-1.001, -2.001], 1e-2, old).problem is None


def test_the_probe_names_distance_and_values_that_are_not_finite() -> None:
    assert "exceeds" in str(compare([-1.0, -2.0], [-1.0, -2.5], 1e-3).problem)
    assert "engine's" in str(compare([-1.0], [math.nan], 1e-3).problem)
    assert "learner's own" in str(compare([math.nan], [-1.0], 1e-3).problem)


def test_tied_tensors_are_sent_once_and_floats_are_cast() -> None:
    embedding = torch.nn.Embedding(4, 2)
    head = torch.nn.Linear(2, 4, bias=False)
    head.weight = embedding.weight
    model = torch.nn.ModuleDict({"embed": embedding, "head": head})
    sent = full_tensors(model, torch.bfloat16)
    assert list(sent) == ["embed.weight"]
    assert sent["embed.weight"].dtype == torch.bfloat16
