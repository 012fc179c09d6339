"""The frozen schema of the synthetic stores, and what is wrong with a query under it.

`schema.json` names every attribute with its type, enum values and source. It is our own contract:
the stores speak a dialect of Shopify's segment query language, not that language bit for bit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from rltrain_envs.segments.syntax import (
    Anniversary,
    Clause,
    Condition,
    Day,
    Matches,
    Number,
    Offset,
    Query,
    Text,
    Value,
    clauses,
)

VALIDATOR_VERSION = "segments-1"
INVENTIONS = ("unknown_attribute", "unknown_function", "unknown_parameter", "unknown_metafield",
              "bad_enum", "unknown_id")
"""Codes of violations that name something which does not exist."""
_ID_TYPES = ("product", "collection", "location", "app", "activity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One attribute, or one parameter of a function."""

    type: str
    values: tuple[str, ...] = ()
    """The allowed strings of an `enum`."""
    pattern: str | None = None
    """What a string has to look like, in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """Names, types, values and inventory."""

    version: str
    operators: Mapping[str, frozenset[str]]
    """By type."""
    attributes: Mapping[str, Field]
    functions: Mapping[str, Mapping[str, Field]]
    metafields: frozenset[str]
    ids: Mapping[str, frozenset[int]]
    """By kind of thing: the ids that exist."""
    tags: frozenset[str]
    """Tags that customers carry. Not checked by the validator: as in the original, any tag is
    valid, which is what makes tags a tempting catch-all."""
    max_clauses: int
    max_items: int


def load_schema() -> Schema:
    """Read `schema.json`, which lies beside this file."""
    raw = json.loads(files(__package__).joinpath("schema.json").read_text(encoding="utf-8"))
    return Schema(
        version=raw["version"],
        operators={name: frozenset(found) for name, found in raw["types"].items()},
        attributes={name: _field(entry) for name, entry in raw["attributes"].items()},
        functions={
            name: {key: Field(type=kind) for key, kind in entry["parameters"].items()}
            for name, entry in raw["functions"].items()
        },
        metafields=frozenset(raw["metafields"]),
        ids={kind: frozenset(raw["inventory"][kind]) for kind in _ID_TYPES},
        tags=frozenset(raw["inventory"]["tags"]),
        max_clauses=raw["limits"]["clauses"],
        max_items=raw["limits"]["list_items"],
    )


def _field(entry: Mapping[str, Any]) -> Field:
    return Field(
        type=entry["type"], values=tuple(entry.get("values", ())), pattern=entry.get("pattern")
    )


def violations(query: Query, schema: Schema) -> tuple[str, ...]:
    """Everything that the schema forbids in the query, as `code: detail`; empty if it is valid.

    Codes: `unknown_attribute`, `unknown_function`, `unknown_parameter`, `unknown_metafield`,
    `bad_operator`, `bad_type`, `bad_enum`, `bad_value`, `unknown_id`, `duplicate_param`,
    `too_many_clauses`, `too_many_items`."""
    found = list(clauses(query))
    reasons = [reason for clause in found for reason in _clause(clause, schema)]
    if len(found) > schema.max_clauses:
        reasons.append(f"too_many_clauses: {len(found)}")
    return tuple(reasons)


def _clause(clause: Clause, schema: Schema) -> Iterator[str]:
    if isinstance(clause, Matches):
        yield from _function(clause, schema)
    elif isinstance(clause, Anniversary):
        if clause.metafield not in schema.metafields:
            yield f"unknown_metafield: {clause.metafield}"
        if clause.operator not in ("=", "BETWEEN"):
            yield f"bad_operator: anniversary {clause.operator}"
        elif not all(isinstance(value, Day | Offset) for value in clause.values):
            yield "bad_type: anniversary wants date"
    elif clause.name in schema.functions:
        yield f"bad_operator: {clause.name} {clause.operator}"
    elif clause.name not in schema.attributes:
        yield f"unknown_attribute: {clause.name}"
    else:
        yield from _condition(clause, clause.name, schema.attributes[clause.name], schema)


def _function(clause: Matches, schema: Schema) -> Iterator[str]:
    name = clause.function
    fields = schema.functions.get(name)
    if fields is None:
        known = name in schema.attributes
        yield f"bad_operator: {name} MATCHES" if known else f"unknown_function: {name}"
        return
    seen: set[str] = set()
    for parameter in clause.parameters:
        label = f"{name}.{parameter.name}"
        if parameter.name not in fields:
            yield f"unknown_parameter: {label}"
            continue
        if parameter.name in seen:
            yield f"duplicate_param: {label}"
        seen.add(parameter.name)
        yield from _condition(parameter, label, fields[parameter.name], schema)


def _condition(condition: Condition, label: str, field: Field, schema: Schema) -> Iterator[str]:
    if condition.operator not in schema.operators[field.type]:
        yield f"bad_operator: {label} {condition.operator}"
        return
    if len(condition.values) > schema.max_items:
        yield f"too_many_items: {label} {len(condition.values)}"
    for value in condition.values:
        reason = _value(value, field, schema)
        if reason:
            code, detail = reason
            yield f"{code}: {label} {detail}"


def _value(value: Value, field: Field, schema: Schema) -> tuple[str, str] | None:
    """Code and detail of what is wrong with a value, or None."""
    if field.type == "date":
        return None if isinstance(value, Day | Offset) else ("bad_type", "wants date")
    if field.type in ("enum", "list", "text"):
        if not isinstance(value, Text):
            return "bad_type", f"wants {field.type}"
        if field.values and value.value not in field.values:
            return "bad_enum", repr(value.value)
        if field.pattern and not re.fullmatch(field.pattern, value.value, re.ASCII):
            return "bad_value", repr(value.value)
        return None
    if not isinstance(value, Number) or (
        field.type != "number" and not isinstance(value.value, int)
    ):
        return "bad_type", f"wants {field.type}"
    if field.type in _ID_TYPES and value.value not in schema.ids[field.type]:
        return "unknown_id", str(value.value)
    return None
