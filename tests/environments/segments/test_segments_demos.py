"""Warm-up demonstrations and labelled judge examples."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from rltrain.errors import UserError
from rltrain_envs.segments import demonstrations, judge_examples
from rltrain_envs.segments.env import Segments
from rltrain_envs.segments.verify import Verifier


def test_without_noise_every_demonstration_is_gold(verifier: Verifier) -> None:
    pairs = list(demonstrations(500, 1, 0.0, verifier=verifier))
    assert len(pairs) == 500
    assert all(answer == task.data["gold"] and task.split == "train" for task, answer in pairs)


def test_noise_is_the_share_of_bad_demonstrations(verifier: Verifier) -> None:
    pairs = list(demonstrations(2000, 1, 0.4, verifier=verifier))
    wrong = [answer for task, answer in pairs if verifier.score(task, answer)[0] < 1.0]
    # A few near misses happen to select the same customers, so that slightly fewer are wrong.
    assert len(wrong) / len(pairs) == pytest.approx(0.4, abs=0.04)
    kinds = Counter(
        "refusal" if verifier.query(answer) is None
        else "valid" if verifier.valid_query(answer) else "invented"
        for answer in wrong
    )
    assert all(kinds[kind] > 80 for kind in ("refusal", "valid", "invented"))


def test_noise_does_not_change_which_tasks_are_shown(verifier: Verifier) -> None:
    clean = [task.id for task, _ in demonstrations(100, 5, 0.0, verifier=verifier)]
    assert clean == [task.id for task, _ in demonstrations(100, 5, 1.0, verifier=verifier)]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_judge_labels_agree_with_execution_and_half_are_correct(
    verifier: Verifier, split: str
) -> None:
    examples = list(judge_examples(1500, 2, split, verifier=verifier))
    assert sum(label for *_, label in examples) / 1500 == pytest.approx(0.5, abs=0.05)
    for task, text, label in examples:
        assert task.split == split
        assert (verifier.score(task, text)[0] == 1.0) == label


def test_judge_examples_are_canonical_and_valid(
    environment: Segments, verifier: Verifier
) -> None:
    for task, text, _ in judge_examples(800, 3, "train", verifier=verifier):
        assert environment.canonical(task, text) == text
        assert text.startswith("CANNOT") or verifier.valid_query(text) is not None


def test_correct_examples_are_not_always_the_gold_text(verifier: Verifier) -> None:
    examples = judge_examples(1500, 4, "test", verifier=verifier)
    texts = [text == task.data["gold"] for task, text, label in examples if label]
    assert 0.6 < sum(texts) / len(texts) < 0.95


def test_an_unknown_split_is_refused(verifier: Verifier) -> None:
    with pytest.raises(UserError, match="no split"):
        next(judge_examples(1, 0, "dev", verifier=verifier))


def test_a_run_of_the_same_seed_gets_other_tasks_than_the_demonstrated(
    environment: Segments, verifier: Verifier
) -> None:
    shown = {task.id for task, _ in demonstrations(1000, 0, verifier=verifier)}
    drawn = [task for task in islice(environment.tasks("train", 0), 1000)
             if task.meta["clauses"] != 1]  # the one-clause tasks are few, and repeat by chance
    assert sum(task.id in shown for task in drawn) / len(drawn) < 0.02
