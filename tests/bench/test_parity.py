"""Every method that TRL 1.16 has: loss and gradient as TRL itself computes them.

The comparison is `rltrain.bench.parity`, which also fills docs/algorithms.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rltrain.bench import algorithms
from rltrain.bench.parity import Bench, measure
from rltrain.bench.parity_cases import CASES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    torch.set_num_threads(1)
    return Bench(tmp_path_factory.mktemp("parity"))


@pytest.mark.parametrize("name", list(CASES))
def test_loss_and_gradient_are_trls(bench: Bench, name: str) -> None:
    case = CASES[name]
    found = measure(bench, case)
    assert found.loss <= 1e-5
    assert found.gradient <= 1e-5
    # The answers must exercise what the case is about, or agreement would say little.
    assert (found.clipped > 0) or not case.clips
    assert (found.masked > 0) or not case.masks


def test_a_wrong_coefficient_would_be_seen(bench: Bench) -> None:
    """The comparison can fail: a clip range off by a tenth, a KL coefficient off by a percent."""
    clip, kl = CASES["two-sided"], CASES["kl"]
    args = {**clip.algo["loss_args"], "clip_low": 0.055}
    assert measure(bench, replace(clip, algo={**clip.algo, "loss_args": args})).loss > 1e-3
    other = {**kl.algo, "kl": {**kl.algo["kl"], "coef": 0.303}}
    assert measure(bench, replace(kl, algo=other)).gradient > 1e-3


def test_the_table_of_algorithms_is_up_to_date() -> None:
    """But for the measured errors. `python scripts/algorithm_table.py` writes it."""
    nothing = {name: algorithms.Error(0.0, 0.0) for name in CASES}
    written = (ROOT / algorithms.PAGE).read_text(encoding="utf-8")
    expected = algorithms.without_numbers(algorithms.text(nothing))
    assert algorithms.without_numbers(written) == expected


@pytest.mark.parametrize("axis", list(algorithms.AXES))
def test_every_choice_has_a_row_a_formula_and_numbers_by_hand(axis: str) -> None:
    page = (ROOT / algorithms.PAGE).read_text(encoding="utf-8")
    tests = "".join((ROOT / path).read_text(encoding="utf-8") for path in algorithms.HAND[axis])
    for name, function in algorithms.AXES[axis].items():
        assert f"| `{name}` | `" in page
        assert algorithms.formula(function)
        assert f'"{name}"' in tests or f"{name}=" in tests, name
        assert algorithms.paper(function) or name == "none"


def test_no_case_speaks_for_a_row_that_does_not_exist() -> None:
    rows = {f"{axis} {name}" for axis, names in algorithms.AXES.items() for name in names}
    assert {row for case in CASES.values() for row in case.shows} <= rows
