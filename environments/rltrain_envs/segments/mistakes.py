"""Wrong queries like those that policies write, for judges to learn from.

Policies were seen to take one value or field for a similar one, to take a value from the clause
beside, to write a digit too many, to leave clauses out or repeat them, to lose brackets, and to do
several of these at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import TypeVar

from rltrain_envs.segments.forms import FORMS, fill
from rltrain_envs.segments.generator import drop_one
from rltrain_envs.segments.mutate import edit, regrouped, replaced, swap_connective, value_pools
from rltrain_envs.segments.schema import Schema
from rltrain_envs.segments.syntax import (
    Anniversary,
    Clause,
    Condition,
    Number,
    Offset,
    Query,
    Value,
    clauses,
    conjunction,
    disjunction,
    offset,
)

_KINDS = {"edit": 40, "digit": 8, "borrowed": 8, "alike": 12, "dropped": 10, "one": 3,
          "brackets": 6, "connective": 4, "clause": 4, "extra": 5}  # fmt: skip
_HOW_MANY = {1: 65, 2: 22, 3: 13}
NewValue = Callable[[Value, Random], Value]
T = TypeVar("T")


class Mistakes:
    """Makes queries wrong. All randomness comes from the caller's generator."""

    def __init__(self, schema: Schema) -> None:
        self._pools = value_pools(schema)
        alike: dict[tuple[Value, ...], set[Clause]] = {}
        for form in FORMS:
            for filled in fill(form):
                alike.setdefault(_values(filled.clause), set()).add(filled.clause)
        self._alike = {key: tuple(sorted(found, key=repr)) for key, found in alike.items()}

    def make(self, query: Query, rng: Random, other: Query) -> Query:
        """The query with one to three mistakes; it may turn out to be right. other: a query that
        clauses are taken from."""
        for _ in range(_pick(_HOW_MANY, rng)):
            query = self._mistake(_pick(_KINDS, rng), query, rng, other)
        return query

    def _mistake(self, kind: str, query: Query, rng: Random, other: Query) -> Query:
        found = list(clauses(query))
        place = rng.randrange(len(found))
        if kind == "digit":
            return replaced(query, place, _revalued(found[place], rng, _another_digit))
        if kind == "borrowed":
            pool = [value for i, clause in enumerate(found) if i != place
                    for value in _values(clause)]  # fmt: skip
            return replaced(query, place, _revalued(found[place], rng, _from_beside(pool)))
        if kind == "alike":
            choices = [c for c in self._alike.get(_values(found[place]), ()) if c != found[place]]
            return replaced(query, place, rng.choice(choices)) if choices else query
        if kind == "clause":
            return replaced(query, place, rng.choice(list(clauses(other))))
        if kind == "extra":
            return _with_extra(query, rng, other)
        rest = list(drop_one(query))
        if kind == "edit" or not rest:
            return edit(query, rng, self._pools)
        if kind == "dropped":
            return rng.choice(rest)
        if kind == "one":
            return found[place]
        return swap_connective(query) if kind == "connective" else regrouped(query, rng)


def _pick(weights: Mapping[T, int], rng: Random) -> T:
    return rng.choices(list(weights), list(weights.values()))[0]


def _values(clause: Clause) -> tuple[Value, ...]:
    """The values of a clause, from left to right."""
    if isinstance(clause, Condition | Anniversary):
        return clause.values
    return tuple(value for item in clause.parameters for value in item.values)


def _revalued(clause: Clause, rng: Random, change: NewValue) -> Clause:
    """The clause with one of its values changed; one without values stays itself."""
    if isinstance(clause, Anniversary) or not _values(clause):
        return clause
    if isinstance(clause, Condition):
        values = list(clause.values)
        place = rng.randrange(len(values))
        values[place] = change(values[place], rng)
        return replace(clause, values=tuple(values))
    items = list(clause.parameters)
    place = rng.randrange(len(items))
    changed = _revalued(items[place], rng, change)
    assert isinstance(changed, Condition)
    items[place] = changed
    return replace(clause, parameters=tuple(items))


def _another_digit(value: Value, rng: Random) -> Value:
    """A number or offset with a digit more, less or other, or in another unit."""
    if isinstance(value, Offset):
        if rng.random() < 0.4:
            return offset(value.count, rng.choice("dwm"))
        return offset(-_misread(-value.count, rng), value.unit)
    if isinstance(value, Number) and isinstance(value.value, int):
        return Number(value=_misread(value.value, rng))
    return value


def _misread(number: int, rng: Random) -> int:
    digits = list(str(abs(number)))
    place = rng.randrange(len(digits))
    kind = rng.choice(("more", "less", "other"))
    if kind == "more":
        digits.insert(place, digits[place] if rng.random() < 0.5 else "0")
    elif kind == "less" and len(digits) > 1:
        del digits[place]
    else:
        digits[place] = str(rng.randrange(1, 10))
    return max(1, int("".join(digits)))


def _from_beside(pool: list[Value]) -> NewValue:
    """Takes a value of the same type from the pool, if there is one."""

    def change(value: Value, rng: Random) -> Value:
        choices = [other for other in pool if type(other) is type(value)]
        return rng.choice(choices) if choices else value

    return change


def _with_extra(query: Query, rng: Random, other: Query) -> Query:
    """With a clause of the other query, or one of its own once more."""
    source = other if rng.random() < 0.7 else query
    join = disjunction if rng.random() < 1 / 3 else conjunction
    return join([query, rng.choice(list(clauses(source)))])
