"""Built models are built once, and are either whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from rltrain.warmup.cache import build_once, content_key, is_complete, source_digest


def build(folder: Path) -> dict[str, float]:
    (folder / "model.safetensors").write_text("weights")
    return {"loss": 0.5}


def test_a_model_is_built_once(tmp_path: Path) -> None:
    calls = []

    def counted(folder: Path) -> dict[str, float]:
        calls.append(folder)
        return build(folder)

    target = tmp_path / "policy-1"
    assert build_once(target, counted) == {"loss": 0.5}
    assert build_once(target, counted) == {"loss": 0.5}
    assert len(calls) == 1
    assert calls[0] != target  # it was made beside, and moved when done
    assert (target / "model.safetensors").read_text() == "weights"
    assert [p.name for p in tmp_path.iterdir()] == ["policy-1"]


@pytest.mark.parametrize("error", [RuntimeError("diverged"), KeyboardInterrupt()])
def test_an_interrupted_build_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def interrupted(folder: Path) -> dict[str, float]:
        build(folder)
        raise error

    with pytest.raises(type(error)):
        build_once(tmp_path / "policy-1", interrupted)
    assert list(tmp_path.iterdir()) == []
    assert build_once(tmp_path / "policy-1", build) == {"loss": 0.5}


def test_a_folder_without_the_marker_is_built_again(tmp_path: Path) -> None:
    target = tmp_path / "policy-1"
    target.mkdir()
    (target / "model.safetensors").write_text("half of the wei")
    assert not is_complete(target)
    build_once(target, build)
    assert is_complete(target)
    assert (target / "model.safetensors").read_text() == "weights"


def test_who_finishes_first_wins_when_two_build_at_once(tmp_path: Path) -> None:
    target = tmp_path / "policy-1"

    def overtaken(folder: Path) -> dict[str, float]:
        build_once(target, build) if not is_complete(target) else None
        (folder / "model.safetensors").write_text("mine")
        return {"loss": 0.5}

    other = tmp_path / "elsewhere"
    build_once(other, build)

    def slower(folder: Path) -> dict[str, float]:
        other.rename(target)  # somebody else's finished build appears in the meantime
        return overtaken(folder)

    assert build_once(target, slower) == {"loss": 0.5}
    assert (target / "model.safetensors").read_text() == "weights"
    assert [p.name for p in tmp_path.iterdir()] == ["policy-1"]


def test_the_key_depends_on_values_and_not_on_their_order() -> None:
    one = content_key({"a": 1, "b": {"c": 2, "d": 3}})
    assert one == content_key({"b": {"d": 3, "c": 2}, "a": 1})
    assert one != content_key({"a": 1, "b": {"c": 2, "d": 4}})
    assert len(one) == 16


def test_a_changed_or_renamed_source_is_another_digest(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("x = 1")
    (tmp_path / "notes.txt").write_text("no part of it")
    first = source_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("changed")
    assert source_digest(tmp_path) == first
    source.write_text("x = 2")
    changed = source_digest(tmp_path)
    source.rename(tmp_path / "b.py")
    assert len({first, changed, source_digest(tmp_path)}) == 3
