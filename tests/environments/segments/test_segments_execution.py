"""Execution, on rows worked by hand and on the four stores."""

from __future__ import annotations

from datetime import date
from itertools import islice
from random import Random

import pytest

from rltrain.errors import EnvironmentFault
from rltrain_envs.segments.env import Segments
from rltrain_envs.segments.execute import Engine
from rltrain_envs.segments.grammar import parse
from rltrain_envs.segments.mutate import edit, value_pools
from rltrain_envs.segments.schema import load_schema
from rltrain_envs.segments.sql import resolve_day
from rltrain_envs.segments.stores import TODAY, open_store
from rltrain_envs.segments.syntax import Day, Query, Refusal, offset
from rltrain_envs.segments.verify import Verifier

_COLUMNS = [
    "id", "customer_added_date", "first_order_date", "last_order_date", "abandoned_checkout_date",
    "amount_spent", "number_of_orders", "customer_account_status", "email_subscription_status",
    "sms_subscription_status", "product_subscription_status", "predicted_spend_tier", "rfm_group",
    "customer_email_domain", "customer_language", "birthday",
]


def _customer(**values: object) -> tuple[object, ...]:
    return tuple(values.get(column) for column in _COLUMNS)


def _ago(days: int) -> int:
    return TODAY.toordinal() - days


@pytest.fixture(scope="module")
def hand_made() -> Engine:
    """Four customers. 1: subscribed, tagged VIP, two orders. 2: unsubscribed. 3, 4: mostly NULL."""
    rows: dict[str, list[tuple[object, ...]]] = {
        "customers": [
            _customer(id=1, email_subscription_status="SUBSCRIBED", amount_spent=10_000,
                      last_order_date=_ago(30), customer_language="fr", birthday=1231),
            _customer(id=2, email_subscription_status="UNSUBSCRIBED", amount_spent=10_001,
                      last_order_date=_ago(31), birthday=102),
            _customer(id=3, amount_spent=9_999, customer_language="it", birthday=615),
            _customer(id=4, amount_spent=0),
        ],
        "labels": [(1, "customer_tags", "vip"), (1, "customer_countries", "FR"),
                   (2, "customer_countries", "FR"), (2, "customer_countries", "US")],
        "orders": [(1, _ago(30), 4_000, 1, 11), (1, _ago(90), 6_000, 2, 11),
                   (2, _ago(31), 10_001, 1, 12)],
        "lines": [(1, _ago(30), 101, "sale", 1), (1, _ago(90), 101, "sale", 2),
                  (2, _ago(31), 102, "winter", 5)],
        "credit": [(1, "EUR", 1_000, None, _ago(1)), (2, "USD", 0, _ago(-9), _ago(1))],
    }
    return Engine([open_store(rows)], load_schema(), TODAY)


def _query(text: str) -> Query:
    query = parse(text)
    assert not isinstance(query, Refusal)
    return query


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        # The NULL rule: negations keep customers without a value, comparisons do not.
        ("email_subscription_status = 'SUBSCRIBED'", {1}),
        ("email_subscription_status != 'SUBSCRIBED'", {2, 3, 4}),
        ("customer_language != 'fr'", {2, 3, 4}),
        ("customer_tags NOT CONTAINS 'vip'", {2, 3, 4}),
        ("customer_countries NOT CONTAINS 'US'", {1, 3, 4}),
        ("last_order_date < today", {1, 2}),
        ("last_order_date IS NULL", {3, 4}),
        ("customer_countries IS NULL", {3, 4}),
        ("customer_countries IS NOT NULL", {1, 2}),
        ("store_credit_accounts MATCHES (next_expiry_date != +9d)", {1}),
        # Comparisons are exact to the cent and to the day; BETWEEN includes both ends.
        ("amount_spent > 100", {2}),
        ("amount_spent >= 100", {1, 2}),
        ("amount_spent BETWEEN 99.99 AND 100", {1, 3}),
        ("last_order_date >= -30d", {1}),
        ("last_order_date = -31d", {2}),
        # Tags compare whole and without regard to case.
        ("customer_tags CONTAINS 'VIP'", {1}),
        ("customer_tags CONTAINS 'vi'", set()),
        # Functions filter rows; count and sums are over the rows that are left.
        ("products_purchased MATCHES (id = 101)", {1}),
        ("products_purchased NOT MATCHES (id = 101)", {2, 3, 4}),
        ("products_purchased MATCHES (id = 101, count = 2)", {1}),
        ("products_purchased MATCHES (id = 101, sum_quantity >= 3)", {1}),
        ("products_purchased MATCHES (id = 101, date >= -30d, sum_quantity >= 3)", set()),
        ("products_purchased MATCHES (tag = 'winter', quantity > 4)", {2}),
        ("orders_placed MATCHES (amount > 50)", {1, 2}),
        ("orders_placed MATCHES (sum_amount BETWEEN 100 AND 100)", {1}),
        ("orders_placed MATCHES (location_id NOT IN (1))", {1}),
        ("orders_placed MATCHES ()", {1, 2}),
        # A count that zero satisfies includes those without any row.
        ("orders_placed MATCHES (count = 0)", {3, 4}),
        ("orders_placed MATCHES (count < 2)", {2, 3, 4}),
        ("orders_placed NOT MATCHES (count < 2)", {1}),
        ("orders_placed MATCHES (count != 1, date >= -30d)", {2, 3, 4}),
        # AND binds tighter, and brackets change that.
        ("amount_spent = 0 OR amount_spent > 100 AND customer_language = 'fr'", {4}),
        ("(amount_spent = 0 OR amount_spent > 99) AND customer_language IS NULL", {2, 4}),
        # Anniversaries ignore the year, and spans wrap round New Year.
        ("anniversary('metafields.facts.birth_date') = today", {3}),
        ("anniversary('metafields.facts.birth_date') BETWEEN 2020-12-31 AND 2020-01-02", {1, 2}),
        ("anniversary('metafields.facts.birth_date') BETWEEN 2020-01-01 AND 2020-06-15", {2, 3}),
    ],
)
def test_a_query_selects_the_customers_worked_out_by_hand(
    hand_made: Engine, text: str, ids: set[int]
) -> None:
    assert hand_made.select(_query(text)) == (frozenset(ids),)
    assert hand_made.masks(_query(text)) == (sum(1 << found for found in ids),)


@pytest.mark.parametrize(
    ("count", "unit", "day"),
    [(-1, "m", date(2025, 2, 28)), (-13, "m", date(2024, 2, 29)), (-1, "y", date(2024, 3, 31)),
     (-2, "w", date(2025, 3, 17)), (-1, "d", date(2025, 3, 30)), (9, "m", date(2025, 12, 31)),
     (-9999, "y", date.min), (9999, "y", date.max)],
)
def test_months_fall_back_to_their_last_day_and_years_stay_in_the_calendar(
    count: int, unit: str, day: date
) -> None:
    assert resolve_day(offset(count, unit), date(2025, 3, 31)) == day


def test_a_calendar_day_is_itself() -> None:
    assert resolve_day(Day(value=date(2020, 2, 29)), TODAY) == date(2020, 2, 29)


def test_bit_masks_select_the_same_customers_as_whole_sql(
    environment: Segments, verifier: Verifier
) -> None:
    rng, pools = Random(1), value_pools(verifier.schema)
    for task in islice(environment.tasks("train", 11), 300):
        query = verifier.query(task.data["gold"])
        if query is None:
            continue
        for candidate in (query, edit(query, rng, pools)):
            masks = tuple(sum(1 << i for i in ids) for ids in verifier.engine.select(candidate))
            assert verifier.engine.masks(candidate) == masks


@pytest.mark.parametrize(
    "literal",
    ["x') OR 1=1 --", "x'; DROP TABLE customers; --", "' UNION SELECT id FROM customers --",
     "%", "_", "?", ":id", "\\", "\\' OR 1=1 --"],
)
@pytest.mark.parametrize("attribute", ["customer_tags CONTAINS", "customer_email_domain ="])
def test_sql_in_a_string_is_only_a_string(
    verifier: Verifier, attribute: str, literal: str
) -> None:
    escaped = literal.replace("\\", "\\\\").replace("'", "\\'")
    query = verifier.valid_query(f"{attribute} '{escaped}'")
    assert query is not None
    assert verifier.engine.masks(query) == (0, 0, 0, 0)
    everyone = verifier.query("customer_added_date <= today")
    assert everyone is not None
    assert verifier.engine.coverage(everyone) == (1.0, 1.0, 1.0, 1.0)


def test_the_stores_cannot_be_written_to() -> None:
    store = open_store({"customers": [_customer(id=1)]})
    with pytest.raises(Exception, match=r"readonly|not authorized"):
        store.connection.execute("DELETE FROM customers")


def test_a_failing_store_is_a_fault_of_the_system_and_not_a_score() -> None:
    store = open_store({})
    engine = Engine([store], load_schema(), TODAY)
    store.connection.close()
    with pytest.raises(EnvironmentFault):
        engine.masks(_query("amount_spent > 1"))


def test_the_decoy_tags_are_as_tempting_as_they_claim(verifier: Verifier) -> None:
    def share(tag: str, of: str) -> float:
        both, whole = _query(f"customer_tags CONTAINS '{tag}' AND {of}"), _query(of)
        return sum(verifier.engine.coverage(both)) / sum(verifier.engine.coverage(whole))

    assert share("newsletter", "email_subscription_status = 'SUBSCRIBED'") == pytest.approx(
        0.9, abs=0.04
    )
    assert share("vip", "amount_spent > 400") == pytest.approx(0.8, abs=0.06)


def test_the_stores_tell_single_edits_apart(environment: Segments, verifier: Verifier) -> None:
    rng, pools = Random(2), value_pools(verifier.schema)
    same = total = 0
    for task in islice(environment.tasks("train", 12), 1000):
        query = verifier.query(task.data["gold"])
        if query is None or task.data["broad_ok"]:
            continue
        mutant = edit(query, rng, pools)
        assert mutant != query and not verifier.violations(mutant)
        total += 1
        same += verifier.engine.masks(mutant) == verifier.engine.masks(query)
    # Without rows at the boundaries about 7 % of the single edits went unnoticed.
    assert total > 800 and same / total < 0.02
