"""docs/faults.md claims nothing that no test does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines()
    if "::test_" in line
]


def test_the_table_is_long_enough_and_has_no_row_twice() -> None:
    cases = [row[0] for row in ROWS]
    assert len(cases) >= 30
    assert len(set(cases)) == len(cases)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_row_has_its_test_which_looks_for_the_quoted_sentence(row: list[str]) -> None:
    name, test = row[-1].split("::")
    source = (TESTS / name).read_text(encoding="utf-8")
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    assert test in [function.name for function in functions]
    texts = [
        node.value.replace("\\", "") for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    for quoted in re.findall("“(.+?)”", row[1]):
        assert any(quoted in text for text in texts), quoted
