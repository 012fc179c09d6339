"""Warm-up demonstrations and labelled judge examples."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random

import pytest

from rltrain.errors import UserError
from rltrain_envs.segments import demonstrations, judge_examples
from rltrain_envs.segments.env import Segments
from rltrain_envs.segments.generator import split_of
from rltrain_envs.segments.mistakes import Mistakes
from rltrain_envs.segments.syntax import Refusal, clauses, print_answer, skeleton
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


def test_no_held_out_skeleton_enters_a_judge_s_training(
    environment: Segments, verifier: Verifier
) -> None:
    """Neither in what is asked nor in an answer, right or wrong."""
    held_out = {
        task.meta["skeleton"] for split in ("validation", "test")
        for task in environment.tasks(split, 0)
    }  # fmt: skip
    for task, text, _ in judge_examples(3000, 0, "train", verifier=verifier):
        assert task.split == "train" and task.meta["skeleton"] not in held_out
        query = verifier.query(text)
        if query is not None:
            assert split_of(skeleton(query), sum(1 for _ in clauses(query))) == "train"


def test_a_judge_does_not_learn_from_the_tasks_of_a_run(
    environment: Segments, verifier: Verifier
) -> None:
    shown = {task.id for task, *_ in judge_examples(1000, 0, "train", verifier=verifier)}
    for stream in (environment.tasks("train", 0), (t for t, _ in demonstrations(1000, 0))):
        drawn = [task for task in islice(stream, 1000) if task.meta["clauses"] != 1]
        assert sum(task.id in shown for task in drawn) / len(drawn) < 0.02


def test_the_order_of_clauses_does_not_give_the_label_away(verifier: Verifier) -> None:
    """Wrong answers are put into another order as often as right ones: where the same clauses
    stand in both, a wrong one differs by its connectives alone."""
    moved = {True: 0, False: 0}
    for task, text, label in judge_examples(3000, 5, "train", verifier=verifier):
        gold, query = verifier.query(task.data["gold"]), verifier.query(text)
        if gold is not None and query is not None:
            asked, said = list(clauses(gold)), list(clauses(query))
            moved[label] += sorted(map(repr, asked)) == sorted(map(repr, said)) and asked != said
    assert moved[True] > 100 and moved[False] > 10


def test_right_answers_are_right_and_in_every_order(
    environment: Segments, verifier: Verifier
) -> None:
    for task in islice(environment.tasks("test", 0), 150):
        answers = environment.right_answers(task)
        assert task.data["gold"] in answers
        assert all(environment.truth(task, text) == 1.0 for text in answers)
        gold = verifier.query(task.data["gold"])
        if gold is not None and task.meta["tier"] == "L4":  # three clauses, one connective
            assert len(set(answers)) == 6


def test_mistakes_change_the_query_and_repeat_with_the_seed(verifier: Verifier) -> None:
    gold = verifier.query("amount_spent > 100 AND last_order_date >= -30d AND rfm_group = 'NEW'")
    other = verifier.query("storefront.product_viewed MATCHES (id = 101)")
    assert gold is not None and other is not None
    mistakes = Mistakes(verifier.schema)

    def texts(seed: int) -> list[str]:
        rng = Random(seed)
        return [print_answer(mistakes.make(gold, rng, other)) for _ in range(400)]

    made = texts(0)
    assert made == texts(0) != texts(1)
    assert sum(text != print_answer(gold) for text in made) > 340
    assert all(not isinstance(verifier.query(text), Refusal | None) for text in made)
    seen = " | ".join(made)
    for part in ("amount_spent <", "rfm_group !=", "rfm_group = 'LOYAL'", "OR", "id = 101",
                 "customer_added_date >= -30d", "orders_placed MATCHES (amount > 100)"):
        assert part in seen, part


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
