"""Syntax tree -> parameterised SQL. No text of an answer ever becomes SQL text.

The NULL rule of the original holds: `!=`, `NOT IN` and `NOT CONTAINS` keep rows without a value.
Only queries that the schema allows may be compiled; names come from the tables below.
"""

from __future__ import annotations

import operator
from calendar import monthrange
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from rltrain_envs.segments.schema import Schema
from rltrain_envs.segments.syntax import (
    And,
    Anniversary,
    Clause,
    Condition,
    Day,
    Matches,
    Number,
    Offset,
    Or,
    Query,
    Text,
    Value,
)

Compiled = tuple[str, list[Any]]
"""A condition on the row `c` of `customers`, and its parameters."""

_HOLDS: Mapping[str, Callable[[float, float], bool]] = {
    "=": operator.eq, "!=": operator.ne, ">": operator.gt, ">=": operator.ge,
    "<": operator.lt, "<=": operator.le,
}
_CENTS = frozenset({"amount_spent", "amount", "balance", "SUM(amount)"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Events:
    """How a function reads its table."""

    table: str
    rows: Mapping[str, str]
    """Parameter -> column that filters single rows."""
    totals: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> aggregate over a customer's matching rows."""
    kind: str | None = None


_FUNCTIONS: Mapping[str, _Events] = {
    "products_purchased": _Events(
        table="lines",
        rows={"id": "product", "tag": "tag", "date": "day", "quantity": "quantity"},
        totals={"sum_quantity": "SUM(quantity)", "count": "COUNT(*)"},
    ),
    "orders_placed": _Events(
        table="orders",
        rows={"date": "day", "amount": "amount", "location_id": "location", "app_id": "app"},
        totals={"sum_amount": "SUM(amount)", "count": "COUNT(*)"},
    ),
    "store_credit_accounts": _Events(
        table="credit",
        rows={"currency": "currency", "balance": "balance", "next_expiry_date": "next_expiry",
              "last_credit_date": "last_credit"},
    ),
    **{
        f"shopify_email.{kind}": _Events(
            table="email_events", kind=kind, rows={"activity_id": "activity", "date": "day"},
            totals={"count": "COUNT(*)"},
        )
        for kind in ("bounced", "clicked", "delivered", "marked_as_spam", "opened", "unsubscribed")
    },
    **{
        f"storefront.{kind}": _Events(
            table="views", kind=kind, rows={"id": "item", "date": "day"},
            totals={"count": "COUNT(*)"},
        )
        for kind in ("product_viewed", "collection_viewed")
    },
}


def compile_query(query: Query, schema: Schema, today: date) -> Compiled:
    """The whole query as one condition. Raises KeyError for names that the schema forbids."""
    if isinstance(query, And | Or):
        word = " AND " if isinstance(query, And) else " OR "
        parts = [compile_query(item, schema, today) for item in query.items]
        return (
            "(" + word.join(text for text, _ in parts) + ")",
            [value for _, values in parts for value in values],
        )
    return compile_clause(query, schema, today)


def compile_clause(clause: Clause, schema: Schema, today: date) -> Compiled:
    """One clause as a condition. Raises KeyError for names that the schema forbids."""
    if isinstance(clause, Matches):
        return _matches(clause, today)
    if isinstance(clause, Anniversary):
        return _anniversary(clause, today)
    if schema.attributes[clause.name].type == "list":
        return _contains(clause)
    return _condition(f"c.{clause.name}", clause, today, cents=clause.name in _CENTS)


def resolve_day(value: Value, today: date) -> date:
    """The calendar day of a date value. Months keep the day or fall back to the month's last."""
    if isinstance(value, Day):
        return value.value
    assert isinstance(value, Offset)
    if value.unit in "dw":
        return today + timedelta(days=value.count * (7 if value.unit == "w" else 1))
    months = today.year * 12 + today.month - 1 + value.count * (12 if value.unit == "y" else 1)
    year, month = divmod(months, 12)
    if not date.min.year <= year <= date.max.year:
        return date.min if year < date.min.year else date.max
    return date(year, month + 1, min(today.day, monthrange(year, month + 1)[1]))


def _plain(value: Value, today: date, *, cents: bool) -> Any:
    """A value as SQLite stores it: days as ordinals, money in cents."""
    if isinstance(value, Text):
        return value.value
    if isinstance(value, Number):
        # Rounded, since 0.29 * 100 is not 29 in binary; four decimals are all the grammar reads.
        return round(value.value * 100, 2) if cents else value.value
    return resolve_day(value, today).toordinal()


def _condition(expression: str, condition: Condition, today: date, *, cents: bool) -> Compiled:
    values = [_plain(value, today, cents=cents) for value in condition.values]
    kind = condition.operator
    if kind in ("IS NULL", "IS NOT NULL"):
        return f"{expression} {kind}", []
    if kind == "BETWEEN":
        return f"{expression} BETWEEN ? AND ?", values
    if kind in ("IN", "NOT IN"):
        text = f"{expression} {kind} ({','.join('?' * len(values))})"
    else:
        text = f"{expression} {kind if kind in _HOLDS else '='} ?"
    if kind in ("!=", "NOT IN"):
        text = f"({expression} IS NULL OR {text})"
    return text, values


def _contains(clause: Condition) -> Compiled:
    """A clause on a list of labels. Tags compare whole and without regard to case."""
    word = "NOT IN" if clause.operator in ("NOT CONTAINS", "IS NULL") else "IN"
    text = f"c.id {word} (SELECT customer FROM labels WHERE attribute = ?"
    values: list[Any] = [clause.name]
    for value in clause.values:
        assert isinstance(value, Text)
        text += " AND value = ?"
        values.append(value.value.lower() if clause.name == "customer_tags" else value.value)
    return text + ")", values


def _matches(clause: Matches, today: date) -> Compiled:
    """Customers with matching rows, or whose totals over the matching rows hold.

    A total that also holds for no rows at all (`count < 3`) includes the customers without any:
    they have no group in SQL, so the complement is selected and turned round."""
    events = _FUNCTIONS[clause.function]
    filters: list[Compiled] = [("kind = ?", [events.kind])] if events.kind else []
    totals: list[Compiled] = []
    at_zero = bool(events.totals)
    for parameter in clause.parameters:
        is_total = parameter.name in events.totals
        column = events.totals[parameter.name] if is_total else events.rows[parameter.name]
        part = _condition(column, parameter, today, cents=column in _CENTS)
        (totals if is_total else filters).append(part)
        if is_total:
            at_zero = at_zero and _holds_at_zero(parameter, part[1])
    where = _joined(filters)
    text = f"SELECT customer FROM {events.table}" + (f" WHERE {where[0]}" if filters else "")
    values = where[1]
    outside = clause.negated
    if totals:
        having, extra = _joined(totals)
        outside = outside != at_zero
        text += f" GROUP BY customer HAVING {'NOT ' if at_zero else ''}({having})"
        values = values + extra
    return f"c.id {'NOT IN' if outside else 'IN'} ({text})", values


def _holds_at_zero(parameter: Condition, values: Sequence[float]) -> bool:
    if parameter.operator == "BETWEEN":
        return values[0] <= 0 <= values[1]
    return _HOLDS[parameter.operator](0, values[0])


def _joined(parts: Sequence[Compiled]) -> Compiled:
    return " AND ".join(text for text, _ in parts), [v for _, values in parts for v in values]


def _anniversary(clause: Anniversary, today: date) -> Compiled:
    days = [resolve_day(value, today) for value in clause.values]
    keys = [day.month * 100 + day.day for day in days]
    if clause.operator == "=":
        return "c.birthday = ?", keys
    # A span over New Year wraps round.
    word = "AND" if keys[0] <= keys[1] else "OR"
    return f"(c.birthday >= ? {word} c.birthday <= ?)", keys
