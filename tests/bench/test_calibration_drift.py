"""PSI and chi-square worked by hand, and what counts as drift."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from rltrain.bench.calibration_drift import BINS, compare, drift, fields_of, kind_of, psi


def test_psi_worked_by_hand() -> None:
    # 50.5 / 101 and 50.5 / 101 against 80.5 / 101 and 20.5 / 101.
    p, q = 80.5 / 101, 20.5 / 101
    expected = (0.5 - p) * math.log(0.5 / p) + (0.5 - q) * math.log(0.5 / q)
    assert psi([50, 50], [80, 20]) == pytest.approx(expected)
    assert psi([30, 70], [30, 70]) == 0.0


def test_chi_square_is_scipys_and_rare_values_share_a_bin() -> None:
    reference = {f"field_{n}": 40 - 2 * n for n in range(15)}
    current = {f"field_{n}": 10 + 2 * n for n in range(15)}
    found = compare(reference, current)
    assert len(found["bins"]) == BINS and found["bins"][-1]["bin"] == "all others"
    for side in ("reference", "current"):
        assert sum(row[side] for row in found["bins"]) == pytest.approx(1.0)
    sizes = [sum(reference.values()), sum(current.values())]
    table = [[row[s] * n for row in found["bins"]]
             for s, n in zip(("reference", "current"), sizes, strict=True)]  # fmt: skip
    assert found["chi_square"] == pytest.approx(chi2_contingency(table).statistic)
    assert found["flagged"] == (found["psi"] > 0.2)


def test_answers_of_one_source_do_not_drift_and_others_do() -> None:
    rng = np.random.default_rng(0)
    names = ("amount_spent", "customer_tags", "order_count")

    def queries(count: int, shares: tuple[float, ...], most: int) -> list[str]:
        return [
            " AND ".join(f"{name} > {rng.integers(9)}" for name in rng.choice(names, k, p=shares))
            for k in rng.integers(1, most + 1, size=count)
        ]

    reference = queries(400, (0.4, 0.3, 0.3), 3)
    same = drift(reference, queries(400, (0.4, 0.3, 0.3), 3))
    other = drift(reference, queries(400, (0.0, 0.9, 0.1), 1))
    assert not any(one["flagged"] for one in same.values())
    assert all(one["flagged"] for one in other.values())
    with pytest.raises(ValueError, match="two samples"):
        drift(reference, [])


@pytest.mark.parametrize(
    ("answer", "kind", "fields"),
    [
        ("", "empty", ["none"]),
        ("yes", "one word", ["none"]),
        ('{"tool": "search", "n": 1}', "json", ["n", "tool"]),
        ("amount_spent > 3", "one clause", ["amount_spent"]),
        ("a_b > 3 AND c_d = 1 OR a_b < 9", "3 clauses", ["a_b", "c_d"]),
        ("a\nb", "several lines", ["none"]),
    ],
)
def test_kind_and_fields_of_an_answer(answer: str, kind: str, fields: list[str]) -> None:
    assert (kind_of(answer), fields_of(answer)) == (kind, fields)
