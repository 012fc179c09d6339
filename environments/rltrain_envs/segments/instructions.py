"""The query language in one system message, for models that have not been warmed up on it.

Written from `schema.json`, so that what a model is told is what the gates check.
"""

from __future__ import annotations

from rltrain_envs.segments.schema import Field, Schema
from rltrain_envs.segments.stores import TODAY

_RULES = """\
Turn the merchant's request into one query that selects exactly the customers meant.
Reply with the query alone, on one line, without quotes around it or words beside it.
If the request needs something that is not listed below, reply: CANNOT: no_such_attribute

Clauses, joined by AND and OR (AND binds tighter; brackets allowed; at most {clauses} clauses):
  name = value, also != > >= < <=
  name BETWEEN value AND value
  name IS NULL, name IS NOT NULL
  list_name CONTAINS 'text', list_name NOT CONTAINS 'text'
  function MATCHES (parameter = value, parameter >= value), or function NOT MATCHES (...)
  anniversary('{metafield}') = date, or BETWEEN date AND date
Values: 'text', numbers, dates as 2025-01-31 or relative to today ({today}) as -30d -2w -3m -1y,
today, yesterday. Products, collections and the like are numbers."""

EXAMPLE = "customer_countries CONTAINS 'FR' AND orders_placed MATCHES (date >= -30d, count >= 2)"


def instructions(schema: Schema) -> str:
    """The text of the system message."""
    rules = _RULES.format(
        clauses=schema.max_clauses, metafield=min(schema.metafields), today=TODAY.isoformat()
    )
    names = [f"  {name}: {_described(field)}" for name, field in schema.attributes.items()]
    functions = [
        f"  {name}: " + ", ".join(f"{key} ({field.type})" for key, field in parameters.items())
        for name, parameters in schema.functions.items()
    ]
    tags = ", ".join(sorted(schema.tags))
    return "\n".join([
        rules, "", "Names:", *names, "", "Functions and their parameters:", *functions, "",
        f"Tags that exist: {tags}", "",
        f"Example: customers from France with at least 2 orders in the last 30 days -> {EXAMPLE}",
    ])


def _described(field: Field) -> str:
    return f"one of {', '.join(field.values)}" if field.values else field.type
