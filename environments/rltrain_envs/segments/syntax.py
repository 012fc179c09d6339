"""The syntax tree of a segment query and its canonical text.

    parse(text) -> Answer = Query | Refusal        print_answer(answer) -> text

A query is a tree of `And` / `Or` over clauses; a clause is a `Condition` on an attribute, a
`Matches` of a function, or an `Anniversary`. Nodes are frozen and hashable, so that they key
caches. `conjunction` and `disjunction` flatten, so that one meaning of brackets has one tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum

COMPARATORS = ("=", "!=", ">", ">=", "<", "<=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A quoted string."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """An integer or a decimal; an integral decimal is an int."""

    value: int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A calendar day."""

    value: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """A day counted from today: -30 `d`. Make it with `offset`, which folds zero into one form."""

    count: int
    unit: str
    """`d`, `w`, `m` or `y`."""


Value = Text | Number | Day | Offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`name operator values`: a clause on an attribute, or one parameter of a function."""

    name: str
    operator: str
    """A comparator, `BETWEEN`, `[NOT ]CONTAINS`, `IS [NOT ]NULL` or `[NOT ]IN`."""
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """`function [NOT ]MATCHES (parameters)`."""

    function: str
    parameters: tuple[Condition, ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Anniversary:
    """`anniversary('metafield') operator values`: a yearly day, the year ignored."""

    metafield: str
    operator: str
    """`=` or `BETWEEN`."""
    values: tuple[Value, ...]


Clause = Condition | Matches | Anniversary


@dataclass(frozen=True, slots=True, kw_only=True)
class And:
    """All of two or more items, none of which is itself an `And`."""

    items: tuple[Query, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Or:
    """Any of two or more items, none of which is itself an `Or`."""

    items: tuple[Query, ...]


Query = Clause | And | Or


class RefusalReason(Enum):
    """Why a request cannot be answered with a query."""

    NO_SUCH_ATTRIBUTE = "no_such_attribute"
    NOT_A_SEGMENT = "not_a_segment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """`CANNOT: reason`, the structured second kind of answer."""

    reason: RefusalReason


Answer = Query | Refusal


def offset(count: int, unit: str) -> Offset:
    """A day counted from today; zero of any unit is `0 d`, so that it prints as `today`."""
    return Offset(count=count, unit=unit if count else "d")


def conjunction(items: Sequence[Query]) -> Query:
    """`And` of the items, nested ones flattened; one item stays itself."""
    flat = [part for item in items for part in (item.items if isinstance(item, And) else (item,))]
    return flat[0] if len(flat) == 1 else And(items=tuple(flat))


def disjunction(items: Sequence[Query]) -> Query:
    """`Or` of the items, nested ones flattened; one item stays itself."""
    flat = [part for item in items for part in (item.items if isinstance(item, Or) else (item,))]
    return flat[0] if len(flat) == 1 else Or(items=tuple(flat))


def clauses(query: Query) -> Iterator[Clause]:
    """The clauses of a query, from left to right."""
    if isinstance(query, And | Or):
        for item in query.items:
            yield from clauses(item)
    else:
        yield query


def skeleton(query: Query) -> str:
    """What a query looks like without its values: connectives over sorted (name, operator).

    Clause order does not matter: `and(amount_spent >|customer_tags CONTAINS)`."""
    if isinstance(query, And | Or):
        word = "and" if isinstance(query, And) else "or"
        return f"{word}({'|'.join(sorted(skeleton(item) for item in query.items))})"
    if isinstance(query, Condition):
        return f"{query.name} {query.operator}"
    if isinstance(query, Anniversary):
        return f"anniversary {query.operator}"
    names = ",".join(sorted(f"{item.name} {item.operator}" for item in query.parameters))
    return f"{query.function} {'NOT ' if query.negated else ''}MATCHES ({names})"


def print_value(value: Value) -> str:
    """Canonical text of a value; `-1d` is `yesterday` and `0d` is `today`."""
    if isinstance(value, Text):
        return "'" + value.value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, Number):
        return repr(value.value)
    if isinstance(value, Day):
        return value.value.isoformat()
    if value.unit == "d" and value.count in (0, -1):
        return "today" if value.count == 0 else "yesterday"
    return f"{value.count:+d}{value.unit}"


def print_answer(answer: Answer) -> str:
    """Canonical text: upper-case keywords, single spaces, brackets only where they are needed."""
    if isinstance(answer, Refusal):
        return f"CANNOT: {answer.reason.value}"
    if isinstance(answer, Or):
        return " OR ".join(print_answer(item) for item in answer.items)
    if isinstance(answer, And):
        return " AND ".join(
            f"({print_answer(item)})" if isinstance(item, Or) else print_answer(item)
            for item in answer.items
        )
    return print_clause(answer)


def print_clause(clause: Clause) -> str:
    """Canonical text of one clause."""
    if isinstance(clause, Matches):
        word = "NOT MATCHES" if clause.negated else "MATCHES"
        return f"{clause.function} {word} ({', '.join(map(print_clause, clause.parameters))})"
    if isinstance(clause, Anniversary):
        name = f"anniversary({print_value(Text(value=clause.metafield))})"
    else:
        name = clause.name
    values = [print_value(value) for value in clause.values]
    if clause.operator == "BETWEEN":
        return f"{name} BETWEEN {values[0]} AND {values[1]}"
    if clause.operator in ("IN", "NOT IN"):
        return f"{name} {clause.operator} ({', '.join(values)})"
    return " ".join([name, clause.operator, *values])
