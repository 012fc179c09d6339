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
from rltrain_envs.segments.generator import REFUSAL, Generator, split_of
from rltrain_envs.segments.mistakes import Mistakes
from rltrain_envs.segments.mutate import (
    Pools,
    edit,
    orders,
    shuffled,
    substitute,
    value_pools,
)
from rltrain_envs.segments.syntax import (
    Query,
    clauses,
    print_answer,
    skeleton,
)
from rltrain_envs.segments.verify import Verifier, build_verifier

_BAD = ("opt_out", "tag", "field", "broad", "near_miss")
_BAD_WEIGHTS = (20, 25, 20, 10, 25)
_WRONG = ("mistakes", "tag", "other", "refusal")
_WRONG_WEIGHTS = (88, 5, 4, 3)
REWRITTEN = 0.4
"""Share of the judge examples, right and wrong, whose clauses stand in another order."""
_JUDGE_STREAM = -1_000_000
"""Judges learn from other tasks than the demonstrated ones and those of a run."""


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

    Labels come from execution in the stores. Of `train`, neither a task nor an answer has a
    held-out skeleton. Held-out splits are gone through again and again, with other answers.
    Deterministic per seed. Raises `UserError` for an unknown split."""
    verifier = verifier or build_verifier()
    mistakes = Mistakes(verifier.schema)
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
            text = _wrong_answer(task, rng, verifier, mistakes, other)
        yield task, text, correct
        other = gold or other


def right_answers(task: Task, verifier: Verifier) -> tuple[str, ...]:
    """The gold answer with its clauses in every order; other right answers may exist."""
    gold = verifier.query(task.data["gold"])
    if gold is None:
        return (REFUSAL,)
    return tuple(print_answer(query) for query in orders(gold))


def _again_and_again(generator: Generator, split: str, seed: int) -> Iterator[Task]:
    if split == "train":
        yield from generator.tasks(split, _JUDGE_STREAM - seed)
    held_out = list(generator.tasks(split, seed))
    for _ in counter():
        yield from held_out


def _right_answer(gold: Query | None, rng: Random) -> str:
    return REFUSAL if gold is None else print_answer(_reordered(gold, rng))


def _reordered(query: Query, rng: Random) -> Query:
    return shuffled(query, rng) if rng.random() < REWRITTEN else query


def _wrong_answer(
    task: Task, rng: Random, verifier: Verifier, mistakes: Mistakes, other: Query
) -> str:
    """A valid answer that execution calls wrong."""
    gold = verifier.query(task.data["gold"])
    while True:
        found: Query | None
        if gold is None:
            found = clause_of(agents.tag(task)) if rng.random() < 0.3 else other
        else:
            found = _mangled(task, gold, rng, mistakes, other)
        text = REFUSAL if found is None else print_answer(_reordered(found, rng))
        if found is not None:
            hidden = task.split == "train" and _held_out(found)
            if hidden or verifier.valid_query(text) is None:  # a mistake may leave the schema
                continue
        if verifier.score(task, text)[0] == 0.0:
            return text


def _held_out(query: Query) -> bool:
    return split_of(skeleton(query), sum(1 for _ in clauses(query))) != "train"


def _mangled(
    task: Task, gold: Query, rng: Random, mistakes: Mistakes, other: Query
) -> Query | None:
    """A candidate for a wrong answer, None for a refusal; it may turn out to be right."""
    kind = rng.choices(_WRONG, _WRONG_WEIGHTS)[0]
    if kind == "refusal":
        return None
    if kind == "other":
        return other
    if kind == "tag":
        return substitute(gold, rng, clause_of(agents.tag(task)))
    return mistakes.make(gold, rng, other)


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
