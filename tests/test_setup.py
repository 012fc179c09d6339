"""Set-up, continuous integration and scripts, as far as they can be checked without installing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
LOCKS = ("cpu", "gpu")
PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z0-9,_-]+\])?==[A-Za-z0-9.!+]+( ; .+)?")


def make(*args: str) -> subprocess.CompletedProcess[str]:
    """A make of its own, also where the tests were started by one."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    command = ["make", "--no-print-directory", *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def entries(accel: str) -> list[str]:
    text = (ROOT / "requirements" / f"{accel}.lock").read_text()
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


def test_make_alone_lists_the_targets() -> None:
    done = make()
    assert done.returncode == 0, done.stderr
    for target in ("train", "test", "setup", "lint", "format", "lock", "clean", "help"):
        assert re.search(rf"^  make {target} +\S", done.stdout, re.MULTILINE), target


def test_accel_is_checked() -> None:
    done = make("help", "ACCEL=tpu")
    assert done.returncode != 0
    assert "ACCEL must be cpu or gpu, not 'tpu'" in done.stderr


def test_a_python_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    done = make("setup", "PYTHON=", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("accel", LOCKS)
def test_a_lock_pins_every_entry_and_names_no_folder(accel: str) -> None:
    found = entries(accel)
    assert len(found) > 100
    assert [line for line in found if not PINNED.fullmatch(line)] == []
    text = (ROOT / "requirements" / f"{accel}.lock").read_text()
    assert not re.search(r"file:|://|--index|--find-links|/opt/|/work/|/home/", text)


@pytest.mark.parametrize("accel", LOCKS)
def test_a_lock_has_every_direct_dependency(accel: str) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {
        re.split(r"[<>=!~ ;\[]", line)[0].lower()
        for line in [*project["dependencies"], *extras[accel], *extras["test"]]
    }
    locked = {re.split(r"[=\[]", line)[0].lower() for line in entries(accel)}
    assert wanted - locked == ({"torch"} if accel == "cpu" else set())


def test_the_cpu_set_holds_nothing_for_cuda_and_leaves_torch_to_the_makefile() -> None:
    names = {line.split("==")[0] for line in entries("cpu")}
    assert not {"torch", "torchvision", "torchaudio", "torchcodec", "triton"} & names
    assert [name for name in names if name.startswith("nvidia-")] == []
    version = re.search(r"^TORCH_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version and f"torch=={version[1]}" in entries("gpu")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_short_and_explains_itself(script: Path) -> None:
    assert len(script.read_text().splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, script, "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script.name}")


def test_there_are_scripts() -> None:
    names = {path.name for path in SCRIPTS}
    assert {"seeds.py", "async_vs_sync.py", "bench_trl.py", "bench_learner.py"} <= names


def test_what_ci_runs_is_executable_bash() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111 == 0o111
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "make test" in script.read_text()
