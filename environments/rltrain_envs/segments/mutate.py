"""Small changes to a query: near misses for a judge, and rewrites that mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations, product
from random import Random

from rltrain_envs.segments.forms import FORMS, fill
from rltrain_envs.segments.schema import Schema
from rltrain_envs.segments.syntax import (
    And,
    Anniversary,
    Clause,
    Condition,
    Matches,
    Or,
    Query,
    Text,
    Value,
    clauses,
    conjunction,
    disjunction,
)

_ORDER = (">", ">=", "<", "<=")
_OPPOSITES = {
    "=": "!=", "!=": "=", "CONTAINS": "NOT CONTAINS", "NOT CONTAINS": "CONTAINS",
    "IS NULL": "IS NOT NULL", "IS NOT NULL": "IS NULL",
}
Pools = Mapping[str, tuple[tuple[Value, ...], ...]]
"""Attribute, or `function.parameter` -> what its values may be exchanged for."""


def value_pools(schema: Schema) -> Pools:
    """The values that requests use, by name, and all values of the enums."""
    pools: dict[str, set[tuple[Value, ...]]] = {}
    for form in FORMS:
        for filled in fill(form):
            for label, condition in _conditions(filled.clause):
                pools.setdefault(f"{label} {len(condition.values)}", set()).add(condition.values)
    for name, field in schema.attributes.items():
        if field.values:
            pools[f"{name} 1"] = {(Text(value=value),) for value in field.values}
    # Sorted by their text: the order of a set differs from process to process.
    return {label: tuple(sorted(pool, key=repr)) for label, pool in pools.items()}


def edit(query: Query, rng: Random, pools: Pools) -> Query:
    """The query with one operator, value or negation changed. It stays valid."""
    found = list(clauses(query))
    index = rng.randrange(len(found))
    return replaced(query, index, _edit_clause(found[index], rng, pools))


def shuffled(query: Query, rng: Random) -> Query:
    """The query with its clauses in another order: the same meaning."""
    if not isinstance(query, And | Or):
        return query
    items = [shuffled(item, rng) for item in query.items]
    rng.shuffle(items)
    return conjunction(items) if isinstance(query, And) else disjunction(items)


def orders(query: Query) -> tuple[Query, ...]:
    """The query with its clauses in every order; of three clauses at most twelve."""
    if not isinstance(query, And | Or):
        return (query,)
    join = conjunction if isinstance(query, And) else disjunction
    return tuple(
        join(items)
        for order in permutations(query.items)
        for items in product(*(orders(item) for item in order))
    )


def regrouped(query: Query, rng: Random) -> Query:
    """Three clauses with other connectives or brackets, possibly the same as before; what has
    fewer gets the other connective."""
    found = list(clauses(query))
    if len(found) < 3:
        return swap_connective(query)
    rng.shuffle(found)
    inner, outer = rng.choice(
        [(conjunction, conjunction), (conjunction, disjunction), (disjunction, conjunction),
         (disjunction, disjunction)]
    )  # fmt: skip
    return outer([inner(found[:2]), *found[2:]])


def swap_connective(query: Query) -> Query:
    """AND for OR at the top, or OR for AND; a single clause stays itself."""
    if not isinstance(query, And | Or):
        return query
    return disjunction(query.items) if isinstance(query, And) else conjunction(query.items)


def substitute(query: Query, rng: Random, clause: Clause) -> Query:
    """The query with one of its clauses replaced by the given one."""
    return replaced(query, rng.randrange(sum(1 for _ in clauses(query))), clause)


def replaced(query: Query, index: int, clause: Clause) -> Query:
    """The query with the clause of that index, counted from the left, replaced."""
    if not isinstance(query, And | Or):
        return clause
    items: list[Query] = []
    for item in query.items:
        size = sum(1 for _ in clauses(item))
        items.append(replaced(item, index, clause) if 0 <= index < size else item)
        index -= size
    return conjunction(items) if isinstance(query, And) else disjunction(items)


def _conditions(clause: Clause) -> list[tuple[str, Condition]]:
    if isinstance(clause, Condition):
        return [(clause.name, clause)]
    if isinstance(clause, Anniversary):
        return []
    return [(f"{clause.function}.{item.name}", item) for item in clause.parameters]


def _edit_clause(clause: Clause, rng: Random, pools: Pools) -> Clause:
    if isinstance(clause, Anniversary):
        return clause
    if isinstance(clause, Condition):
        return _edit_condition(clause, clause.name, rng, pools)
    if not clause.parameters or rng.random() < 0.2:
        return replace(clause, negated=not clause.negated)
    place = rng.randrange(len(clause.parameters))
    parameters = list(clause.parameters)
    label = f"{clause.function}.{parameters[place].name}"
    parameters[place] = _edit_condition(parameters[place], label, rng, pools)
    return Matches(
        function=clause.function, parameters=tuple(parameters), negated=clause.negated
    )


def _edit_condition(condition: Condition, label: str, rng: Random, pools: Pools) -> Condition:
    pool = pools.get(f"{label} {len(condition.values)}", ())
    others = [values for values in pool if values != condition.values]
    fixed = condition.operator not in _ORDER and condition.operator not in _OPPOSITES
    if others and (fixed or rng.random() < 0.6):
        return replace(condition, values=rng.choice(others))
    if condition.operator in _ORDER:
        operators = [word for word in _ORDER if word != condition.operator]
        return replace(condition, operator=rng.choice(operators))
    return replace(condition, operator=_OPPOSITES[condition.operator])
