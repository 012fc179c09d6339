"""The adapter to reasoning-gym: splits, form, scorers, and what the audit finds in them."""

from __future__ import annotations

import asyncio
from itertools import islice

import msgspec
import pytest

pytest.importorskip("reasoning_gym", reason="needs reasoning-gym: make extras")

from rltrain.commands.audit_env import facts_of
from rltrain.errors import EnvironmentFault, UserError
from rltrain_envs.reasoning_gym import build
from rltrain_envs.reasoning_gym.audit import examine


def test_no_held_out_question_is_trained_on_and_tasks_repeat_per_seed() -> None:
    env = build("gcd")
    held_out = {split: list(env.tasks(split, 0)) for split in ("validation", "test")}
    hidden = {task.data["question"] for tasks in held_out.values() for task in tasks}
    assert len(hidden) == sum(map(len, held_out.values())) >= 390
    train = list(islice(env.tasks("train", 3), 700))  # more than one chunk
    assert not hidden & {task.data["question"] for task in train}
    assert train == list(islice(build("gcd").tasks("train", 3), 700))
    assert train[0] != next(env.tasks("train", 4))
    with pytest.raises(UserError, match="train, validation and test"):
        env.tasks("dev", 0)


def test_a_task_travels_and_is_scored_where_it_arrives() -> None:
    task = next(build("gcd").tasks("train", 0))
    arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(task), type=type(task))
    assert arrived == task
    assert build("gcd").truth(arrived, f"<answer>{task.data['gold']}</answer>") == 1.0


def test_the_answer_stands_between_tags_once() -> None:
    env = build("gcd")
    task = next(env.tasks("test", 0))
    gold = task.data["gold"]

    def verdicts(answer: str) -> tuple[bool, float]:
        checks = env.checks()
        form = asyncio.run(checks["format"](task, answer))
        return form.passed, asyncio.run(checks["score"](task, answer)).score

    assert verdicts(f"so <answer> {gold} </answer>") == (True, 1.0)
    assert verdicts(gold) == (False, 0.0)
    assert verdicts(f"<answer>{gold}</answer><answer>{gold}</answer>") == (False, 0.0)
    assert env.canonical(task, "<answer>1\n2</answer>") == "1 2"
    plain = build("gcd", answer="text")
    assert plain.truth(next(plain.tasks("test", 0)), gold) == 1.0


def test_a_scorer_that_raises_is_a_fault_and_no_score() -> None:
    env = build("prime_factorization", allow_unsound=True)
    with pytest.raises(EnvironmentFault, match="scorer of reasoning_gym"):
        env.truth(next(env.tasks("test", 0)), "<answer>no idea</answer>")


def test_what_cannot_be_had_is_one_sentence() -> None:
    with pytest.raises(UserError, match="has no dataset 'nope'; it has ab, acre"):
        build("nope")
    with pytest.raises(UserError, match=r"pays 1\.0 for any text; choose another"):
        build("game_of_life_halting")
    with pytest.raises(UserError, match="cannot make the dataset 'gcd'"):
        build("gcd", config={"nonsense": 1})


@pytest.mark.parametrize(("dataset", "agent"), [
    ("game_of_life_halting", "junk"), ("coin_flip", "constant 0"),
    ("course_schedule", "constant False"), ("circuit_logic", "constant 0"),
    ("prime_factorization", "junk"), ("boxnet", "constant 0"), ("ransom_note", "constant True"),
    ("isomorphic_strings", "constant False"), ("polynomial_equations", "constant 0"),
])  # fmt: skip
def test_the_audit_finds_the_known_defects_of_scorers(dataset: str, agent: str) -> None:
    assert any(line.startswith(agent) for line in examine(dataset, 12, known=0)["failing"])


def test_a_sound_dataset_passes_the_audit_of_the_command_line() -> None:
    facts = facts_of("reasoning_gym", ["environment.args.dataset=base_conversion"], 10, 0.1)
    assert facts["sound"] and facts["environment"] == "reasoning_gym.base_conversion"
    assert len(facts["agents"]) > 30
