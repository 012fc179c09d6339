"""Ground-truth sets: from execution with synthetic raters, and from people's files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rltrain import build
from rltrain.bench import calibration_set
from rltrain.bench.calibration_set import (
    adjudications,
    from_environment,
    from_file,
    key_of,
)
from rltrain.config.compose import load_config
from rltrain.errors import UserError
from rltrain.protocols import Environment

WORDS = {"yes": 1.0, "no": 0.0}


@pytest.fixture(scope="module")
def env() -> Environment:
    return build.environment(load_config(["experiment=segments_cpu"]).environment)


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_synthetic_raters_are_noisy_copies_of_executed_truth_even_over_strata(
    env: Environment,
) -> None:
    made = from_environment(env, 300, "test", seed=2, errors=(0.0, 0.1, 0.4))
    truth = np.array([item.truth for item in made.items])
    wrong = np.abs(made.scores - truth[:, None]).mean(axis=0)
    assert made.synthetic and all(name.startswith("synthetic") for name in made.raters)
    assert wrong[0] == 0 and wrong == pytest.approx([0, 0.1, 0.4], abs=0.06)
    for item in made.items[::20]:
        assert env.truth(item.task, item.answer) == item.truth
        assert item.task.split == "test"
    strata = Counter((item.kind, item.truth) for item in made.items)
    assert len({kind for kind, _ in strata}) > 3
    assert min(strata.values()) >= 5, "small strata are there as well"
    assert made.digest == from_environment(env, 300, "test", seed=2, errors=(0, 0.1, 0.4)).digest
    with pytest.raises(UserError, match="rater-errors"):
        from_environment(env, 10, "test", seed=2, errors=(0.1,))


def test_a_file_of_ratings_and_adjudications(env: Environment, tmp_path: Path) -> None:
    task = next(iter(env.tasks("test", 0)))
    rows = [
        {"id": task.id, "answer": task.data["gold"], "ratings": {"ann": "yes", "ben": True}},
        {"id": task.id, "answer": "amount_spent > 1", "ratings": {"ann": 0, "ben": "Right"}},
        {"request": "everybody", "answer": "x", "ratings": {"ben": 0.25}, "kind": "odd"},
    ]  # fmt: skip
    made = from_file(written(tmp_path / "labels.jsonl", *rows), env, WORDS)
    assert made.raters == ("ann", "ben") and not made.synthetic
    assert np.array_equal(made.scores, [[1, 1], [0, 1], [np.nan, 0.25]], equal_nan=True)
    assert [item.truth for item in made.items[:2]] == [1.0, 0.0]
    assert (made.items[2].kind, made.items[2].task.data["request"]) == ("odd", "everybody")
    assert np.array_equal(made.labels(0.5), [1.0, np.nan, 0.0], equal_nan=True)
    key = key_of(task, "amount_spent > 1")
    path = written(tmp_path / "settled.jsonl", {"item": key, "label": "wrong", "by": "ann"})
    assert adjudications(path, made, WORDS) == {key: 0.0}
    unknown = written(tmp_path / "unknown.jsonl", {"item": "123", "label": "no"})
    with pytest.raises(UserError, match=r"line 1.*no item '123'"):
        adjudications(unknown, made, WORDS)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([1], "not a JSON object"),
        ({"request": "r", "answer": "x", "ratings": {"a": 2, "b": 1}}, "rating 2 is neither"),
        ({"request": "r", "answer": "x", "ratings": {"a": "maybe", "b": 1}}, "'maybe'"),
        ({"request": "r", "ratings": {"a": 1, "b": 1}}, "needs `answer`"),
        ({"answer": "x", "ratings": {"a": 1, "b": 1}}, "needs `id` of a task, or `request`"),
        ({"id": "nowhere", "answer": "x", "ratings": {"a": 1, "b": 1}}, "no task has the id"),
        ({"request": "r", "answer": "x", "ratings": {"a": 1}}, "at least two are needed"),
    ],
)
def test_a_wrong_line_is_named(
    row: Any, said: str, env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_set, "SEARCHED", 10)
    with pytest.raises(UserError, match=said):
        from_file(written(tmp_path / "labels.jsonl", row), env, WORDS)
