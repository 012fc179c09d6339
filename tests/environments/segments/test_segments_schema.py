"""The typed validator and its reasons."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from rltrain_envs.segments.grammar import parse
from rltrain_envs.segments.schema import load_schema, violations
from rltrain_envs.segments.sql import compile_query
from rltrain_envs.segments.stores import TODAY
from rltrain_envs.segments.syntax import Refusal
from rltrain_envs.segments.verify import Verifier


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("amount_spent > 5 AND customer_tags CONTAINS 'made-up'", []),
        ("total_spent > 5", ["unknown_attribute: total_spent"]),
        ("orders MATCHES (id = 1)", ["unknown_function: orders"]),
        ("amount_spent MATCHES ()", ["bad_operator: amount_spent MATCHES"]),
        ("orders_placed = 3", ["bad_operator: orders_placed ="]),
        ("orders_placed MATCHES (colour = 3)", ["unknown_parameter: orders_placed.colour"]),
        ("orders_placed MATCHES (count = 1, count = 2)", ["duplicate_param: orders_placed.count"]),
        ("products_purchased MATCHES (id IN (101, 9999))",
         ["unknown_id: products_purchased.id 9999"]),
        ("products_purchased MATCHES (id > 101)", ["bad_operator: products_purchased.id >"]),
        ("products_purchased MATCHES (id = '101')", ["bad_type: products_purchased.id wants "
                                                     "product"]),
        ("email_subscription_status = 'enabled'",
         ["bad_enum: email_subscription_status 'enabled'"]),
        ("email_subscription_status > 'SUBSCRIBED'",
         ["bad_operator: email_subscription_status >"]),
        ("customer_tags = 'vip'", ["bad_operator: customer_tags ="]),
        ("customer_countries CONTAINS 'France'", ["bad_value: customer_countries 'France'"]),
        ("number_of_orders = 1.5", ["bad_type: number_of_orders wants integer"]),
        ("amount_spent = 1.5", []),
        ("last_order_date > 30", ["bad_type: last_order_date wants date"]),
        ("anniversary('metafields.facts.birth_date') = today", []),
        ("anniversary('metafields.x.y') > 3",
         ["unknown_metafield: metafields.x.y", "bad_operator: anniversary >"]),
        (" OR ".join(["amount_spent > 5"] * 10), []),
        (" OR ".join(["amount_spent > 5"] * 11), ["too_many_clauses: 11"]),
        ("products_purchased MATCHES (id IN (" + ", ".join(["101"] * 501) + "))",
         ["too_many_items: products_purchased.id 501"]),
    ],
)
def test_a_violation_has_a_code_and_names_what_it_is_about(text: str, reasons: list[str]) -> None:
    query = parse(text)
    assert not isinstance(query, Refusal)
    assert list(violations(query, load_schema())) == reasons


def test_every_field_of_the_schema_names_a_known_source() -> None:
    raw = json.loads(
        files("rltrain_envs.segments").joinpath("schema.json").read_text(encoding="utf-8")
    )
    entries = [*raw["attributes"].values(), *raw["functions"].values(),
               *raw["metafields"].values(), raw["limits"], raw["inventory"]]
    assert {entry["source"] for entry in entries} == set(raw["sources"])


def test_everything_that_the_schema_allows_can_be_executed(verifier: Verifier) -> None:
    schema = verifier.schema
    samples = {"date": "-30d", "number": "10.5", "integer": "2", "enum": "", "text": "'en'",
               "list": "'US'", "product": "101", "collection": "201", "location": "1",
               "app": "11", "activity": "301"}

    def written(name: str, kind: str, operator: str, value: str) -> str:
        if operator.startswith("IS"):
            return f"{name} {operator}"
        if operator == "BETWEEN":
            return f"{name} BETWEEN {value} AND {value}"
        return f"{name} {operator} ({value})" if operator.endswith("IN") else (
            f"{name} {operator} {value}")

    texts = []
    for name, field in schema.attributes.items():
        value = f"'{field.values[0]}'" if field.values else samples[field.type]
        patterned = {"customer_regions": "'US-NY'", "customer_cities": "'US-NY-NewYorkCity'"}
        texts += [written(name, field.type, word, patterned.get(name, value))
                  for word in sorted(schema.operators[field.type])]
    for function, fields in schema.functions.items():
        for name, field in fields.items():
            texts += [
                f"{function} MATCHES ({written(name, field.type, word, samples[field.type])})"
                for word in sorted(schema.operators[field.type]) if not word.startswith("IS")
            ]
    assert len(texts) > 300
    for text in texts:
        query = verifier.valid_query(text)
        assert query is not None, (text, verifier.read(text))
        assert verifier.engine.masks(query)
        assert compile_query(query, schema, TODAY)[0].count("?") == len(
            compile_query(query, schema, TODAY)[1]
        )
