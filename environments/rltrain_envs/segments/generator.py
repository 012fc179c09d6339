"""Tasks: a request in words and the query that answers it.

    draw clauses -> connect -> reject what cannot be judged -> put into words -> Task

Rejected are queries that select too few or nearly all customers, and queries in which a clause
does not matter (dropping it selects the same customers). Splits are by *skeleton*, the query
without its values: the hash of a skeleton of two or three clauses decides whether it belongs to
`train`, `validation` or `test`, so that a held-out task has a combination never seen in training.
Skeletons of one clause are always `train`: they are the vocabulary.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from rltrain.errors import UserError
from rltrain.types import Message, Scalar, Task
from rltrain_envs.segments.execute import Engine, Masks
from rltrain_envs.segments.forms import BROAD, BROAD_QUERY, FORMS, UNKNOWN, Filled, complement, fill
from rltrain_envs.segments.mentions import mentioned_tags
from rltrain_envs.segments.syntax import And, Or, Query, conjunction, disjunction, print_answer
from rltrain_envs.segments.syntax import skeleton as skeleton_of

SPLITS = ("train", "validation", "test")
TRAIN_CLAUSES, HELD_OUT_CLAUSES = (5, 4, 2), (0, 4, 2)
"""Weights of one, two and three clauses."""
HELD_OUT = 600
"""Tasks in each of `validation` and `test`."""
TEST_SHARE, VALIDATION_SHARE = 0.14, 0.12
"""Shares of the skeletons of two and three clauses."""
UNANSWERABLE, BROAD_SHARE = 0.07, 0.01
"""Shares of the tasks."""
MAX_COVERAGE = 0.95
"""Most of any store that a gold query may select; below what counts as over-broad."""
REFUSAL = "CANNOT: no_such_attribute"
_STRUCTURES: Mapping[int, tuple[tuple[str, ...], tuple[int, ...]]] = {
    1: (("one",), (1,)), 2: (("and", "or", "except"), (4, 3, 2)),
    3: (("and", "and-or", "or-and", "except"), (4, 2, 2, 2)),
}
"""Clauses -> structures and their weights. `except` says the last clause and means its opposite."""
_TIERS = {"one1": "L1", "and2": "L2", "or2": "L3", "except2": "L3", "and3": "L4", "except3": "L5",
          "and-or3": "L5", "or-and3": "L5"}
_NEGATIVE = re.compile(r"\b(?:not|never|without|outside|unknown)\b")
_OPENERS = ("customers", "show customers", "find customers", "list customers",
            "segment of customers", "I need customers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A task before it is put into a split."""

    request: str
    gold: str
    answerable: bool
    broad_ok: bool
    skeleton: str
    clauses: int
    tier: str


def split_of(skeleton: str, clauses: int) -> str:
    """The split that a skeleton belongs to, by its SHA-256; one clause is always `train`."""
    if clauses < 2:
        return "train"
    digest = hashlib.sha256(f"segments-1:{skeleton}".encode()).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    if draw < TEST_SHARE:
        return "test"
    return "validation" if draw < TEST_SHARE + VALIDATION_SHARE else "train"


class Generator:
    """Draws tasks. Holds the filled forms; all randomness comes from the caller's seed."""

    def __init__(
        self,
        engine: Engine,
        train_clauses: Sequence[int] = TRAIN_CLAUSES,
        lead: tuple[Message, ...] = (),
    ) -> None:
        """train_clauses: weights of one, two and three clauses in `train`; the held-out splits
        do not depend on it. lead: messages before each request, such as instructions."""
        self._engine = engine
        self._lead = lead
        self._train_clauses = tuple(train_clauses)
        by_kind: dict[str, list[tuple[Filled, ...]]] = {}
        for form in FORMS:
            by_kind.setdefault(form.kind, []).append(fill(form))
        self._forms = tuple(tuple(forms) for forms in by_kind.values())

    def tasks(self, split: str, seed: int) -> Iterator[Task]:
        """Tasks of a split. `train` is endless and may repeat a request, with the same id; the
        other two are 600 distinct requests each, the same for every seed. Raises `UserError`."""
        if split not in SPLITS:
            raise UserError(f"segments has no split {split!r}; use one of {', '.join(SPLITS)}")
        if split == "train":
            return self._stream(split, Random(f"segments-train-{seed}"))
        return islice(self._distinct(split), HELD_OUT)

    def _distinct(self, split: str) -> Iterator[Task]:
        seen: set[str] = set()
        for task in self._stream(split, Random(f"segments-{split}")):
            if task.id not in seen:
                seen.add(task.id)
                yield task

    def _stream(self, split: str, rng: Random) -> Iterator[Task]:
        weights = self._train_clauses if split == "train" else HELD_OUT_CLAUSES
        while True:
            draw = rng.random()
            if draw < BROAD_SHARE and split == "train":
                yield _task(_broad(rng), split, self._lead)
                continue
            count = rng.choices((1, 2, 3), weights)[0]
            # Rejected drafts are redrawn with the same count, so that the weights come out.
            while True:
                draft = self._draft(rng, count, refuse=draw > 1 - UNANSWERABLE)
                if draft and split_of(draft.skeleton, draft.clauses) == split:
                    break
            yield _task(draft, split, self._lead)

    def _draft(self, rng: Random, count: int, *, refuse: bool) -> Draft | None:
        """One candidate with `count` clauses, or None if it is to be rejected."""
        structure = rng.choices(*_STRUCTURES[count])[0]
        kinds = rng.sample(self._forms, count)
        filled = [rng.choice(rng.choice(forms)) for forms in kinds]
        phrases = [rng.choice(item.phrases) for item in filled]
        if refuse:
            return _unanswerable(rng, structure, filled, phrases)
        parts: list[Query] = [item.clause for item in filled]
        if structure == "except":
            opposite = complement(filled[-1].clause)
            # "except those not from" would be a riddle.
            if opposite is None or _NEGATIVE.search(phrases[-1]):
                return None
            parts[-1] = opposite
        query = _connect(structure, parts)
        if not self._matters(query):
            return None
        return Draft(
            request=_say(rng, structure, phrases), gold=print_answer(query), answerable=True,
            broad_ok=False, skeleton=skeleton_of(query), clauses=count,
            tier=_TIERS[f"{structure}{count}"],
        )

    def _matters(self, query: Query) -> bool:
        """True if the query can be told from doing nothing and from its own parts."""
        masks = self._engine.masks(query)
        if sum(mask.bit_count() >= 2 for mask in masks) < 3:
            return False
        if any(share > MAX_COVERAGE for share in self._engine.coverage(query)):
            return False
        return all(_differ(masks, self._engine.masks(part)) for part in drop_one(query))


def drop_one(query: Query) -> Iterator[Query]:
    """The queries that are left when one clause is dropped; none for a single clause."""
    if not isinstance(query, And | Or):
        return
    join = conjunction if isinstance(query, And) else disjunction
    for index, item in enumerate(query.items):
        rest = [*query.items[:index], *query.items[index + 1 :]]
        yield join(rest)
        for part in drop_one(item):
            yield join([*query.items[:index], part, *query.items[index + 1 :]])


def _differ(one: Masks, other: Masks) -> bool:
    """Different in at least two stores, so that no single lucky row decides."""
    return sum(a != b for a, b in zip(one, other, strict=True)) >= 2


def _connect(structure: str, parts: list[Query]) -> Query:
    if structure == "and-or":
        return conjunction([parts[0], disjunction(parts[1:])])
    if structure == "or-and":
        return conjunction([disjunction(parts[:2]), parts[2]])
    return disjunction(parts) if structure == "or" else conjunction(parts)


def _say(rng: Random, structure: str, phrases: list[str]) -> str:
    opener = rng.choice(_OPENERS)
    if structure == "and-or":
        return f"{opener} {phrases[0]} and either {phrases[1]} or {phrases[2]}"
    if structure == "or-and":
        return f"{opener} either {phrases[0]} or {phrases[1]}, and {phrases[2]}"
    if structure == "except":
        return f"{opener} {' and '.join(phrases[:-1])} except those {phrases[-1]}"
    return f"{opener} {(' or ' if structure == 'or' else ' and ').join(phrases)}"


def _unanswerable(
    rng: Random, structure: str, filled: list[Filled], phrases: list[str]
) -> Draft:
    """Puts something that no store knows in the place of one clause."""
    place = rng.randrange(len(phrases))
    said = list(phrases)
    said[place] = rng.choice(rng.choice(UNKNOWN)[1])
    real = sorted(skeleton_of(item.clause) for i, item in enumerate(filled) if i != place)
    return Draft(
        request=_say(rng, structure, said), gold=REFUSAL, answerable=False, broad_ok=False,
        skeleton=f"cannot {structure}({'|'.join(real)})", clauses=len(phrases), tier="refusal",
    )


def _broad(rng: Random) -> Draft:
    request = " ".join((rng.choice(("show", "find", "segment of")), rng.choice(BROAD)))
    return Draft(
        request=request, gold=BROAD_QUERY, answerable=True, broad_ok=True,
        skeleton="customer_added_date <=", clauses=1, tier="broad",
    )


def _task(draft: Draft, split: str, lead: tuple[Message, ...]) -> Task:
    digest = hashlib.sha256(draft.request.encode()).hexdigest()[:16]
    meta: dict[str, Scalar] = {
        "skeleton": draft.skeleton, "clauses": draft.clauses, "tier": draft.tier,
    }
    return Task(
        id=f"segments/{split}/{digest}",
        env="segments",
        prompt=(*lead, Message(role="user", content=draft.request)),
        split=split,
        data={
            "gold": draft.gold,
            "answerable": draft.answerable,
            "broad_ok": draft.broad_ok,
            "request": draft.request,
            "mentions": {"tags": list(mentioned_tags(draft.request))},
        },
        meta=meta,
    )
