"""What may not stand in the source: loading code from data, and shells. Read as syntax, so that a
comment does not count and a renamed import does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path for folder in ("rltrain", "environments", "kernels", "scripts")
    for path in (ROOT / folder).rglob("*.py")
)  # fmt: skip
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
CALLS = {
    "eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "yaml.load_all", "tempfile.mktemp", "pandas.read_pickle",
}  # fmt: skip
FLAGS = {"trust_remote_code", "allow_pickle", "shell"}
TEXTS = {"--trust-remote-code", "trust_remote_code", "allow_pickle"}


def dangers(source: str) -> list[str]:
    """What a source does that it may not, with line numbers."""
    tree = ast.parse(source)
    names = _imported(tree)
    return [f"line {line}: {what}" for node in ast.walk(tree) for line, what in _of(node, names)]


def _imported(tree: ast.AST) -> dict[str, str]:
    """Local name -> full name, for every import anywhere in the file."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _of(node: ast.AST, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
        yield from ((node.lineno, f"import {m}") for m in modules if m.split(".")[0] in MODULES)
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
        yield node.lineno, f"from {node.module} import"
    elif isinstance(node, ast.Constant) and node.value in TEXTS:
        yield node.lineno, f"the text {node.value!r}"
    elif isinstance(node, ast.Call):
        yield from ((node.lineno, what) for what in _call(node, names))


def _call(node: ast.Call, names: dict[str, str]) -> Iterator[str]:
    called = _full(node.func, names)
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    if called in CALLS:
        yield f"{called}()"
    if called == "torch.load" and not _is(given.get("weights_only"), True):
        yield "torch.load() without weights_only=True"
    for flag in FLAGS & given.keys():
        if not _is(given[flag], False):
            yield f"{flag}= something else than False"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _full(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_full(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def test_nothing_in_the_source_loads_code_from_data_or_starts_a_shell() -> None:
    assert len(FILES) > 100
    found = {
        path.relative_to(ROOT).as_posix(): bad
        for path in FILES
        if (bad := dangers(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from pickle import loads",
        "import os\nos.system('ls')",
        "from torch import load as fetch\nfetch('x')",
        "import torch as t\nt.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import torch\ntorch.load('x', weights_only=flag)",
        "model(trust_remote_code=True)",
        "args = ['--trust-remote-code']",
        "settings = {'trust_remote_code': True}",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "eval('1')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(bad: str) -> None:
    assert dangers(bad) != []


@pytest.mark.parametrize(
    "good",
    [
        "import torch\ntorch.load('x', weights_only=True)",
        "model.eval()",
        "# import pickle",
        "import yaml\nyaml.safe_load(text)",
        "f(trust_remote_code=False)",
    ],
)
def test_the_search_leaves_the_harmless_alone(good: str) -> None:
    assert dangers(good) == []
