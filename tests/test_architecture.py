"""Sizes, layers and purity, measured: the rules that rot when only people look after them."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rltrain.config import RunConfig
from rltrain.config.compose import load_config

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("rltrain", "environments", "kernels", "scripts", "tests")
FILES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.is_file()
)
MAX_FILE, MAX_FUNCTION, MAX_CLASS, MAX_SCRIPT = 300, 60, 200, 40
EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def definitions(path: Path, kind: type | tuple[type, ...]) -> Iterator[tuple[str, int]]:
    """(place, lines) of every definition of a kind, decorators and docstring counted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, kind):
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            assert node.end_lineno is not None
            yield f"{name_of(path)}:{node.name}", node.end_lineno - first + 1


def test_there_is_something_to_measure() -> None:
    assert len(FILES) > 100
    assert {name_of(path).split("/")[0] for path in FILES} >= {"rltrain", "environments", "tests"}


def test_no_file_is_longer_than_300_lines_and_no_script_than_40() -> None:
    too_long = {}
    for path in FILES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > (MAX_SCRIPT if name_of(path).startswith("scripts/") else MAX_FILE):
            too_long[name_of(path)] = lines
    assert too_long == {}


def test_no_function_is_longer_than_60_lines() -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    sizes = dict(entry for path in FILES for entry in definitions(path, kinds))
    assert {place: lines for place, lines in sizes.items() if lines > MAX_FUNCTION} == {}


def test_no_class_is_longer_than_200_lines() -> None:
    sizes = dict(entry for path in FILES for entry in definitions(path, ast.ClassDef))
    assert {place: lines for place, lines in sizes.items() if lines > MAX_CLASS} == {}


def test_every_module_says_what_it_is() -> None:
    silent = [
        name_of(path)
        for path in FILES
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_layers_import_downwards_only() -> None:
    command = shutil.which("lint-imports") or str(Path(sys.executable).with_name("lint-imports"))
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "0 broken" in done.stdout


def test_there_are_experiments() -> None:
    assert "segments_cpu" in EXPERIMENTS


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_validates(experiment: str) -> None:
    assert isinstance(load_config([f"experiment={experiment}"]), RunConfig)


@pytest.mark.parametrize(
    ("modules", "never"),
    [
        (
            ["rltrain.algo", "rltrain.batch", "rltrain.types", "rltrain.detectors",
             "rltrain.rewards"],
            ["vllm", "wandb", "hydra"],
        ),
        (
            ["rltrain.rollout.engine_client", "rltrain.rollout.worker"],
            ["torch", "vllm"],
        ),
    ],
    ids=["the pure part", "a rollout worker"],
)  # fmt: skip
def test_importing_a_package_loads_nothing_that_it_must_not(
    modules: list[str], never: list[str]
) -> None:
    """Every module of the packages, in a fresh process; what that loads is in sys.modules."""
    code = f"""
import importlib, pkgutil, sys
for name in {modules!r}:
    package = importlib.import_module(name)
    for info in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
        importlib.import_module(info.name)
print(len([m for m in sys.modules if m.startswith("rltrain.")]))
print(" ".join(m for m in {never!r} if m in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count, loaded = done.stdout.split("\n")[:2]
    assert int(count) > len(modules)
    assert loaded == ""
