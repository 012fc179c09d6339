"""Warm-up data for a policy, and labelled pairs for a judge.

Demonstrations can be *noisy on purpose*: a share of them is bad in the ways that production logs
are (opt-outs, tags for everything, invented fields, everybody, slightly wrong values). A policy
warmed up on them starts with hacks to be trained out; with `noise=0` all are gold.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as counter
from random import Random

from rltrain.types import Task
from rltrain_envs.segments import agents
from rltrain_envs.segments.forms import clause_of
from rltrain_envs.segments.generator import REFUSAL, Generator, drop_one
from rltrain_envs.segments.mutate import (
    Pools,
    edit,
    shuffled,
    substitute,
    swap_connective,
    value_pools,
)
from rltrain_envs.segments.syntax import Query, print_answer
from rltrain_envs.segments.verify import Verifier, build_verifier

_BAD = ("opt_out", "tag", "field", "broad", "near_miss")
_BAD_WEIGHTS = (20, 25, 20, 10, 25)
_WRONG = ("edit", "dropped", "connective", "tag", "other", "refusal")
_WRONG_WEIGHTS = (45, 15, 10, 15, 10, 5)
REWRITTEN = 0.4
"""Share of the correct judge examples whose clauses stand in another order."""


def demonstrations(
    count: int,
    seed: int,
    noise: float = 0.0,
    *,
    verifier: Verifier | None = None,
    generator: Generator | None = None,
) -> Iterator[tuple[Task, str]]:
    """`count` pairs of a `train` task and an answer to imitate.

    With probability `noise` in [0, 1] the answer is a bad one. Deterministic per seed."""
    verifier = verifier or build_verifier()
    pools = value_pools(verifier.schema)
    rng = Random(f"segments-demonstrations-{seed}")
    # Not the stream of `seed` itself: a run with that seed would train on what it was shown here.
    tasks = (generator or Generator(verifier.engine)).tasks("train", -1 - seed)
    for _ in range(count):
        task = next(tasks)
        bad = rng.random() < noise
        yield task, _bad_answer(task, rng, verifier, pools) if bad else str(task.data["gold"])


def judge_examples(
    count: int,
    seed: int,
    split: str = "train",
    *,
    verifier: Verifier | None = None,
    generator: Generator | None = None,
) -> Iterator[tuple[Task, str, bool]]:
    """`count` triples of a task, a canonical answer and whether it is correct; half are.

    Labels come from execution in the stores. Held-out splits are gone through again and again,
    with other answers. Deterministic per seed. Raises `UserError` for an unknown split."""
    verifier = verifier or build_verifier()
    pools = value_pools(verifier.schema)
    rng = Random(f"segments-judge-{split}-{seed}")
    other = verifier.query("amount_spent > 100")
    assert other is not None
    tasks = _again_and_again(generator or Generator(verifier.engine), split, seed)
    for _ in range(count):
        task = next(tasks)
        gold = verifier.query(task.data["gold"])
        correct = rng.random() < 0.5
        if correct:
            text = _right_answer(gold, rng)
        else:
            text = _wrong_answer(task, rng, verifier, pools, other)
        yield task, text, correct
        other = gold or other


def _again_and_again(generator: Generator, split: str, seed: int) -> Iterator[Task]:
    if split == "train":
        yield from generator.tasks(split, seed)
    held_out = list(generator.tasks(split, seed))
    for _ in counter():
        yield from held_out


def _right_answer(gold: Query | None, rng: Random) -> str:
    if gold is None:
        return REFUSAL
    return print_answer(shuffled(gold, rng) if rng.random() < REWRITTEN else gold)


def _wrong_answer(
    task: Task, rng: Random, verifier: Verifier, pools: Pools, other: Query
) -> str:
    """A valid answer that execution calls wrong."""
    gold = verifier.query(task.data["gold"])
    while True:
        if gold is None:
            text = agents.tag(task) if rng.random() < 0.3 else print_answer(other)
        else:
            text = _mangled(task, gold, rng, pools, other)
        if verifier.score(task, text)[0] == 0.0:
            return text


def _mangled(task: Task, gold: Query, rng: Random, pools: Pools, other: Query) -> str:
    """A candidate for a wrong answer; it may turn out to be right."""
    kind = rng.choices(_WRONG, _WRONG_WEIGHTS)[0]
    if kind == "refusal":
        return REFUSAL
    if kind == "other":
        return print_answer(other)
    if kind == "tag":
        return print_answer(substitute(gold, rng, clause_of(agents.tag(task))))
    rest = list(drop_one(gold))
    if kind == "dropped" and rest:
        return print_answer(rng.choice(rest))
    if kind == "connective" and rest:
        return print_answer(swap_connective(gold))
    return print_answer(edit(gold, rng, pools))


def _bad_answer(task: Task, rng: Random, verifier: Verifier, pools: Pools) -> str:
    """A bad demonstration, of a kind that is bad for this task."""
    gold = verifier.query(task.data["gold"])
    kind = rng.choices(_BAD, _BAD_WEIGHTS)[0]
    if kind == "broad" and not task.data["broad_ok"]:
        return rng.choice(agents.EVERYBODY)
    if kind == "opt_out" and gold is not None:
        return rng.choice(agents.REFUSALS)
    if kind == "field":
        return agents.invent_field(task)
    if kind == "near_miss" and gold is not None:
        return print_answer(edit(gold, rng, pools))
    return agents.tag(task)
