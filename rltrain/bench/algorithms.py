"""docs/algorithms.md: every choice of the `algo` section, from its docstring, and what it was
checked against. The numbers come from running `rltrain.bench.parity`."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rltrain.algo.advantages import ADVANTAGES
from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.algo.corrections import CORRECTIONS
from rltrain.algo.entropy import ENTROPY
from rltrain.algo.kl import KL
from rltrain.algo.losses import LOSSES
from rltrain.algo.proximal import PROXIMAL
from rltrain.bench.parity_cases import CASES

PAGE = Path("docs/algorithms.md")
AXES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "advantage": ADVANTAGES,
    "loss": LOSSES,
    "proximal": PROXIMAL,
    "correction": CORRECTIONS,
    "kl": KL,
    "entropy": ENTROPY,
    "aggregation": AGGREGATIONS,
}
HAND = {
    "advantage": ("tests/algo/test_advantages.py",),
    "loss": ("tests/algo/test_losses.py", "tests/algo/test_losses_trust.py"),
    "proximal": ("tests/algo/test_mismatch.py",),
    "correction": ("tests/algo/test_corrections.py",),
    "kl": ("tests/algo/test_kl.py",),
    "entropy": ("tests/algo/test_mismatch.py", "tests/train/test_objective.py"),
    "aggregation": ("tests/algo/test_aggregation.py",),
}
"""Where each axis is worked by hand."""
ADVANTAGE_PARITY = "tests/algo/test_advantages_trl.py"
HEAD = """# Algorithms

Written by `python scripts/algorithm_table.py`; do not edit. Each row is one function and one line
in a dict; choices of different axes combine freely ([how to add one](extending.md)).

r = pi / pi_old is the ratio that a loss clips, rho = pi_old / mu what a correction weighs by, A the
advantage, G the siblings of a group, d = log(trainer / mu), x = log(pi_ref / pi), sg stops the
gradient. `algo.kl` says how the policy is held to its reference: `coef`, `estimator`, `placement`.

"TRL" means that TRL's own trainer was run on the same model and answers: the largest relative error
of its loss and of its gradient over all parameters (Euclidean norm), in fp32, over the cases that
use the row (`rltrain/bench/parity_cases.py`; tolerance 1e-5). Every row also has numbers worked by
hand in the tests named beneath its table.
"""


class Error(NamedTuple):
    """Relative errors against TRL."""

    loss: float
    gradient: float


def main(page: Path = PAGE) -> None:
    """Run every parity case and write the page; says how far off the worst is."""
    measured = measure_all()
    page.write_text(text(measured), encoding="utf-8")
    worst = max(max(error) for error in measured.values())
    print(f"{page}: {len(measured)} cases against TRL, largest relative error {worst:.1e}")


def measure_all() -> dict[str, Error]:
    """Errors of every case, by its name."""
    import torch
    from transformers.utils import logging

    from rltrain.bench.parity import Bench, measure

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        found = {name: measure(bench, case) for name, case in CASES.items()}
    return {name: Error(parity.loss, parity.gradient) for name, parity in found.items()}


def text(measured: Mapping[str, Error]) -> str:
    """The page. `measured` has an error for every case."""
    parts = [HEAD]
    for axis, functions in AXES.items():
        rows = [
            f"| `{name}` | {_code(formula(function))} | {paper(function)} "
            f"| {checked(axis, name, measured)} |"
            for name, function in functions.items()
        ]
        key = f"algo.{axis}" if axis not in ("entropy", "kl") else f"algo.{axis}.estimator"
        title = "`algo.entropy_coef`, `algo.top_entropy`" if axis == "entropy" else f"`{key}`"
        files = ", ".join(f"[{Path(f).name}](../{f})" for f in HAND[axis])
        table = ["| name | per token | paper | checked against |", "|---|---|---|---|", *rows]
        parts.append("\n".join([f"## {title}", "", *table, "", f"By hand: {files}.", ""]))
    return "\n".join(parts)


def formula(function: Callable[..., Any]) -> str:
    """The first line of a docstring, or its first sentence if it goes on; without markup and
    without the number of an equation."""
    first = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
    plain = re.sub(r" \((?:eq|sec)\.[^)]*\)", "", first).replace("`", "")
    return re.split(r"\.(?: |$)", plain)[0]


def paper(function: Callable[..., Any]) -> str:
    """What the docstring's last paragraph says after `Paper:`, arXiv numbers as links."""
    last = " ".join((inspect.getdoc(function) or "").split("\n\n")[-1].split())
    if not last.startswith("Paper:"):
        return ""
    named = re.sub(r",? no arXiv", "", last.removeprefix("Paper:").strip())
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[\1](https://arxiv.org/abs/\1)", named)


def checked(axis: str, name: str, measured: Mapping[str, Error]) -> str:
    """Largest errors over the cases that show this row, or that it is worked by hand only."""
    if axis == "advantage":
        with_trl = f'"{name}"' in _source(ADVANTAGE_PARITY)
        return f"TRL ([test](../{ADVANTAGE_PARITY}))" if with_trl else "hand"
    errors = [measured[case] for case, how in CASES.items() if f"{axis} {name}" in how.shows]
    if not errors:
        return "hand"
    loss, gradient = max(e.loss for e in errors), max(e.gradient for e in errors)
    return f"TRL: {loss:.1e}, {gradient:.1e}"


def without_numbers(page: str) -> str:
    """The page with every measured error blanked."""
    return re.sub(r"\d\.\de[+-]\d\d", "#", page)


def _source(path: str) -> str:
    return (Path(__file__).parents[2] / path).read_text(encoding="utf-8")


def _code(value: str) -> str:
    return f"`{value}`".replace("|", "\\|")
