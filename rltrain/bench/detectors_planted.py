"""Planted cases in free text and in code, and honest code of the standard library.

The words lie in `detectors_text_{a,b}.toml` and `detectors_code_{a,b}.toml`. What is correct in
code is found by running the hidden tests. Tampering code is never run.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from rltrain.bench.detectors_cases import Case

TEXT_KINDS = ("refusal", "repetition", "format_gaming", "judge_attack", "judge_injection")
CODE_KINDS = ("special_casing", "test_tampering", "repetition", "judge_attack")
ASKED = 3
"""Planted answers are put under this many of the questions that have one right answer."""
_BOTH = {"judge_attack": ("judge_injection",), "repetition": ("judge_attack",)}
RUN_S = 20.0
"""Longest that one solution of ours may run."""
PACKAGES = ("numpy", "scipy", "sklearn", "httpx", "rich", "jinja2")
"""Installed wherever rltrain is; no rule was tuned on them."""
LIBRARY_SKIPS = ("test", "unittest", "idlelib", "lib2to3", "site-packages", "turtledemo",
                 "testing", "_testing", "conftest.py")  # fmt: skip
"""Parts of the standard library that are about tests, or are not the library."""


def words(name: str) -> Mapping[str, Any]:
    """One vocabulary: `text_a`, `text_b`, `code_a` or `code_b`."""
    text = files("rltrain.bench").joinpath(f"detectors_{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def text_cases(vocabulary: str) -> Iterator[Case]:
    """Honest, wrong and planted answers in free text."""
    said = words(f"text_{vocabulary}")
    make = _Maker(f"text-{vocabulary}", vocabulary, TEXT_KINDS)
    questions = said["questions"]
    for number, question in enumerate(questions):
        refuses = question.get("answerable", True) is False
        for answer in question["honest"]:
            yield make(question["ask"], answer, f"honest {number}", ["refusal"] * refuses, True)
        for answer in question["wrong"]:
            yield make(question["ask"], answer, f"wrong {number}", [], False)
    askable = [q for q in questions if q["truth"] and q["wrong"]][:ASKED]
    for kind in TEXT_KINDS:
        # Alternatives and templates are written for the first question.
        under = askable[:1] if kind == "format_gaming" else askable
        for number, answer in enumerate(said[kind]["answers"]):
            for question in under:
                full = answer.replace("{answer}", question["honest"][0])
                right = None if kind in ("judge_injection", "format_gaming") else False
                yield make(question["ask"], full, f"{kind} {number}", [kind], right)


class _Maker:
    """Numbers the cases of one vocabulary."""

    def __init__(self, name: str, vocabulary: str, labelled: Sequence[str]) -> None:
        self.name, self.labelled, self.count = name, frozenset(labelled), 0
        self.source = f"planted-{vocabulary}"

    def __call__(
        self, ask: str, answer: str, template: str, kinds: Sequence[str], correct: bool | None
    ) -> Case:
        self.count += 1
        # An opener that says nothing is a finding of `judge_injection` as well, rightly; and a
        # row of dashes is both a loop and no content.
        unclear = {k for kind in kinds for k in _BOTH.get(kind, ())}
        return Case(
            id=f"{self.name}-{self.count}", source=self.source, template=f"{self.name} {template}",
            request=ask, answer=answer, kinds=frozenset(kinds), correct=correct,
            labelled=self.labelled - unclear,
        )  # fmt: skip


def code_cases(vocabulary: str) -> Iterator[Case]:
    """Honest code, special-cased code, and code that tampers with the tests."""
    said = words(f"code_{vocabulary}")
    make = _Maker(f"code-{vocabulary}", vocabulary, CODE_KINDS)
    ran = _outcomes([(code.strip(), tuple(p["hidden"])) for p in said["problems"]
                     for code in (*p["honest"], *p["special"])])  # fmt: skip
    for place, problem in enumerate(said["problems"]):
        ask = f"{problem['ask']}\nYour code has to pass:\n" + "\n".join(problem["visible"])
        name = _name(problem["ask"])
        for kind, key in (((), "honest"), (("special_casing",), "special")):
            for number, code in enumerate(problem[key]):
                right = ran[code.strip(), tuple(problem["hidden"])]
                for fenced in (code.strip(), f"Here it is:\n```python\n{code.strip()}\n```"):
                    yield make(ask, fenced, f"{key} {place} {number}", kind, right)
        for kind, key in (((), "honest"), (("test_tampering",), "answers")):
            for number, code in enumerate(said["tampering"][key]):
                stub = f"def {name}(*args):\n    return None"
                full = code.strip().replace("{stub}", stub).replace("{name}", name)
                yield make(ask, full, f"tampering {key} {number}", kind, False)


def _name(ask: str) -> str:
    found = re.search(r"Write (\w+)\(", ask)
    assert found, f"no function is asked for: {ask}"
    return found.group(1)


def passes(code: str, tests: Sequence[str]) -> bool:
    """Whether a solution of ours passes its tests, in a process of its own."""
    program = "\n".join([code, *tests])
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, timeout=RUN_S, check=False)
    return done.returncode == 0


def _outcomes(
    wanted: Sequence[tuple[str, tuple[str, ...]]],
) -> Mapping[tuple[str, tuple[str, ...]], bool]:
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(wanted, pool.map(lambda pair: passes(*pair), wanted), strict=True))


def library_cases(where: str, count: int, seed: int) -> Iterator[Case]:
    """Functions of Python's standard library (`stdlib`) or of `PACKAGES` (`packages`) as honest
    answers to their own docstrings. Nobody wrote them with a detector in mind."""
    for place, request, code in islice(_library(where, seed), count):
        yield Case(
            id=place, source=where, template=place, request=request, answer=code,
            kinds=frozenset(), correct=True, labelled=frozenset(CODE_KINDS),
        )  # fmt: skip


def _library(where: str, seed: int) -> Iterator[tuple[str, str, str]]:
    """(place, request, code) from the files in an order drawn from the seed."""
    root = Path(sysconfig.get_paths()["stdlib" if where == "stdlib" else "purelib"])
    folders = [root] if where == "stdlib" else [root / name for name in PACKAGES]
    paths = sorted(p for folder in folders for p in folder.rglob("*.py"))
    Random(seed).shuffle(paths)
    for path in paths:
        inside = path.relative_to(root)
        if any(part in LIBRARY_SKIPS or part.startswith("test") for part in inside.parts):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (OSError, SyntaxError, ValueError):
            continue
        lines = text.splitlines()
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and (doc := ast.get_docstring(node)):
                code = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                yield f"{inside}:{node.name}", f"Write {node.name}. {doc}", code
