"""The task generator: splits, determinism, and that every task can be judged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from rltrain.errors import UserError
from rltrain.types import Message, Task
from rltrain_envs.segments.env import Segments
from rltrain_envs.segments.forms import BROAD, FORMS, UNKNOWN, fill
from rltrain_envs.segments.generator import REFUSAL, drop_one
from rltrain_envs.segments.mentions import mentioned_tags
from rltrain_envs.segments.verify import Verifier

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def train(environment: Segments) -> list[Task]:
    return list(islice(environment.tasks("train", 0), 6000))


@pytest.fixture(scope="module")
def validation(environment: Segments) -> list[Task]:
    return list(environment.tasks("validation", 0))


def test_no_skeleton_and_no_request_is_in_two_splits(
    train: list[Task], validation: list[Task], held_out: list[Task]
) -> None:
    for of in ("skeleton", "request"):
        seen = [
            {task.meta["skeleton"] if of == "skeleton" else task.data["request"] for task in tasks}
            for tasks in (train, validation, held_out)
        ]
        assert all(len(values) > 200 for values in seen)
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_held_out_splits_are_600_distinct_tasks_whatever_the_seed(
    environment: Segments, validation: list[Task], held_out: list[Task]
) -> None:
    for tasks in (validation, held_out):
        assert len(tasks) == len({task.data["request"] for task in tasks}) == 600
    assert list(environment.tasks("test", 99)) == held_out


def test_train_depends_on_its_seed_alone(environment: Segments, train: list[Task]) -> None:
    assert list(islice(environment.tasks("train", 0), 300)) == train[:300]
    assert list(islice(environment.tasks("train", 1), 300)) != train[:300]


def test_tasks_are_the_same_in_processes_with_other_hash_seeds() -> None:
    program = (
        "import hashlib\nfrom itertools import islice\n"
        "from rltrain_envs.segments import build, demonstrations, judge_examples\n"
        "env = build()\n"
        "data = [*islice(env.tasks('train', 3), 200), *islice(env.tasks('test', 3), 100),\n"
        "        *demonstrations(200, 3, 0.5), *judge_examples(200, 3, 'test'),\n"
        "        *(agent.answer(task) for agent in env.adversaries()\n"
        "          for task in islice(env.tasks('test', 0), 5))]\n"
        "print(hashlib.sha256(repr(data).encode()).hexdigest())\n"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "environments")])
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1 and len(digests.pop()) == 65


def test_the_same_request_has_the_same_id_and_the_same_gold(train: list[Task]) -> None:
    gold: dict[str, tuple[str, str]] = {}
    for task in train:
        known = gold.setdefault(task.data["request"], (task.id, task.data["gold"]))
        assert known == (task.id, task.data["gold"])
    assert len({task.id for task in train}) == len(gold)


def test_no_two_forms_say_the_same_thing() -> None:
    said: dict[str, str] = {}
    for form in FORMS:
        for filled in fill(form):
            for phrase in filled.phrases:
                assert said.setdefault(phrase, repr(filled.clause)) == repr(filled.clause), phrase
    unknown = {phrase for _, phrases in UNKNOWN for phrase in phrases}
    assert not unknown & set(said)


def test_a_prompt_is_one_short_user_message_without_the_answer(train: list[Task]) -> None:
    for task in train:
        assert task.prompt == (Message(role="user", content=task.data["request"]),)
        assert len(task.data["request"].split()) <= 36
        assert task.data["gold"] not in task.prompt[0].content


def test_clause_counts_follow_their_weights(train: list[Task]) -> None:
    counts = Counter(task.meta["clauses"] for task in train if task.meta["tier"] != "broad")
    total = sum(counts.values())
    for clauses, weight in ((1, 5), (2, 4), (3, 2)):
        assert counts[clauses] / total == pytest.approx(weight / 11, abs=0.03)


def test_every_split_has_requests_that_cannot_be_answered(
    train: list[Task], validation: list[Task], held_out: list[Task]
) -> None:
    for tasks in (train, validation, held_out):
        refused = [task for task in tasks if not task.data["answerable"]]
        assert len(refused) / len(tasks) == pytest.approx(0.07, abs=0.03)
        assert {task.data["gold"] for task in refused} == {REFUSAL}
    broad = [task for task in train if task.data["broad_ok"]]
    assert {task.data["request"].split(" ", 1)[0] for task in broad} == {"show", "find", "segment"}
    assert all(task.data["request"].endswith(BROAD) for task in broad)


def test_every_clause_of_every_held_out_query_matters(
    verifier: Verifier, held_out: list[Task]
) -> None:
    checked = 0
    for task in held_out:
        query = verifier.valid_query(task.data["gold"])
        if query is None:
            assert task.data["gold"] == REFUSAL
            continue
        masks, coverage = verifier.engine.masks(query), verifier.engine.coverage(query)
        assert sum(mask > 0 for mask in masks) >= 3 and max(coverage) <= 0.95
        for part in drop_one(query):
            assert verifier.engine.masks(part) != masks
            checked += 1
    assert checked > 1000


def test_an_unknown_split_is_refused_with_the_known_ones(environment: Segments) -> None:
    with pytest.raises(UserError, match="train, validation, test"):
        environment.tasks("dev", 0)


@pytest.mark.parametrize(
    ("request_text", "tags"),
    [("customers tagged vip", ("vip",)), ("not tagged 'B2B'", ("b2b",)),
     ("with the tag gift or tagged press", ("gift", "press")),
     ("who carry the wholesale tag", ("wholesale",)), ("VIP-tagged people", ("vip",)),
     ("subscribed to email", ()), ("in the loyal rfm group", ())],
)
def test_tags_are_read_from_the_words_of_the_request(
    request_text: str, tags: tuple[str, ...]
) -> None:
    assert mentioned_tags(request_text) == tags


def test_the_mentions_of_a_task_are_the_tags_of_its_gold(train: list[Task]) -> None:
    seen = 0
    for task in train:
        if task.data["answerable"] and "customer_tags" in task.data["gold"]:
            assert task.data["mentions"]["tags"] == [
                task.data["gold"].split("customer_tags")[1].split("'")[1]
            ]
            seen += 1
    assert seen > 100
