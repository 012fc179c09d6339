"""Four synthetic stores in memory, the same in every process.

The rows are made to tell near misses apart and to tempt a shortcut:

* constants that requests mention (amounts, counts, days ago) have rows just below, at and just
  above them, so that `>` for `>=` or a neighbouring number changes the result;
* tags are correlated decoys: `newsletter` sits on 90 % of the e-mail subscribers and `vip` on
  80 % of those who spent more than 400, so that a tag instead of the attribute is nearly right;
* many columns are NULL for some customers, so that the NULL rule of `!=` matters.

Days are stored as proleptic ordinals, money in cents.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from random import Random

TODAY = date(2025, 6, 15)
"""The day on which all requests are made: fixed, so that an answer never changes its meaning."""
STORES = 4
AMOUNTS = (25, 50, 80, 100, 150, 200, 300, 500)
"""Amounts of money (whole units) that requests mention."""
DAYS_AGO = (7, 10, 14, 21, 30, 31, 45, 60, 90, 92, 182)
"""Numbers of days ago that requests mention; 31, 92 and 182 are one, three and six months."""
DAYS = (date(2024, 6, 1), date(2024, 9, 1), date(2025, 1, 1), date(2025, 4, 1))
"""Calendar days that requests mention."""
COUNTRIES = {
    "CA": ("CA-ON", "CA-ON-Toronto", "en"), "DE": ("DE-BE", "DE-BE-Berlin", "de"),
    "ES": ("ES-MD", "ES-MD-Madrid", "es"), "FR": ("FR-IDF", "FR-IDF-Paris", "fr"),
    "GB": ("GB-ENG", "GB-ENG-London", "en"), "IT": ("IT-25", "IT-25-Milan", "it"),
    "JP": ("JP-13", "JP-13-Tokyo", "ja"), "US": ("US-NY", "US-NY-NewYorkCity", "en"),
}
"""Country -> its region, city and usual language."""
LANGUAGES = ("de", "en", "es", "fr")
DOMAINS = ("gmail.com", "yahoo.com", "outlook.com", "icloud.com")
EMAIL_EVENTS = ("bounced", "clicked", "delivered", "marked_as_spam", "opened", "unsubscribed")
RFM = ("CHAMPIONS", "LOYAL", "ACTIVE", "NEW", "PROMISING", "NEEDS_ATTENTION", "AT_RISK",
       "ALMOST_LOST", "PREVIOUSLY_LOYAL", "DORMANT", "PROSPECTS", None)

_TABLES = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, customer_added_date, first_order_date,
  last_order_date, abandoned_checkout_date, amount_spent, number_of_orders,
  customer_account_status, email_subscription_status, sms_subscription_status,
  product_subscription_status, predicted_spend_tier, rfm_group, customer_email_domain,
  customer_language, birthday);
CREATE TABLE labels (customer, attribute, value);
CREATE TABLE orders (customer, day, amount, location, app);
CREATE TABLE lines (customer, day, product, tag, quantity);
CREATE TABLE email_events (customer, kind, day, activity);
CREATE TABLE views (customer, kind, day, item);
CREATE TABLE credit (customer, currency, balance, next_expiry, last_credit);
"""
_WIDTHS = {"customers": 16, "labels": 3, "orders": 5, "lines": 5, "email_events": 4, "views": 4,
           "credit": 5}
_INDEXES = """
CREATE INDEX labels_by_value ON labels (attribute, value, customer);
CREATE INDEX lines_by_product ON lines (product, day, customer);
CREATE INDEX email_events_by_kind ON email_events (kind, day, customer);
CREATE INDEX views_by_item ON views (kind, item, day, customer);
"""

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION}

Rows = dict[str, list[tuple[object, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One store: an open SQLite connection and how many customers it has."""

    connection: sqlite3.Connection
    customers: int


def open_store(rows: Rows) -> Store:
    """A store in memory from explicit rows by table name; missing tables are empty."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.executescript(_TABLES)
    for table, found in rows.items():
        marks = ",".join("?" * _WIDTHS[table])
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", found)
    connection.executescript(_INDEXES)
    connection.commit()
    # Queries are parameterised; this is the second wall: nothing can write any more, and no other
    # statement than a SELECT is prepared, so that nothing can lift the wall or open a file either.
    connection.execute("PRAGMA query_only = ON")
    connection.set_authorizer(_only_reading)
    return Store(connection=connection, customers=len(rows.get("customers", ())))


def _only_reading(action: int, *names: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


def build_stores(tags: Sequence[str]) -> tuple[Store, ...]:
    """The four stores, of 420, 470, 520 and 570 customers, carrying the given tags."""
    plain = sorted(set(tags) - {"newsletter", "vip"})
    return tuple(
        open_store(_store_rows(Random(f"segments-store-{index}"), 420 + 50 * index, plain))
        for index in range(STORES)
    )


def _store_rows(rng: Random, count: int, plain_tags: Sequence[str]) -> Rows:
    rows: Rows = {table: [] for table in _WIDTHS}
    for customer in range(1, count + 1):
        days, spent = _orders(rng, customer, rows)
        email = rng.choices(("SUBSCRIBED", "NOT_SUBSCRIBED", "UNSUBSCRIBED", "PENDING", "INVALID",
                             None), (40, 15, 20, 12, 8, 5))[0]
        country = rng.choice(tuple(COUNTRIES))
        _labels(rng, customer, rows, country=country, plain_tags=plain_tags,
                decoys=_decoys(rng, subscribed=email == "SUBSCRIBED", spent=spent))
        _events(rng, customer, rows)
        language = COUNTRIES[country][2] if rng.random() < 0.6 else rng.choice(LANGUAGES)
        tier = "HIGH" if spent > 40_000 else "MEDIUM" if spent > 12_000 else "LOW"
        rows["customers"].append((
            customer,
            _day(rng, 800),
            min(days, default=None),
            max(days, default=None),
            _day(rng, 300) if rng.random() < 0.55 else None,
            spent,
            len(days),
            rng.choice(("DECLINED", "DISABLED", "ENABLED", "ENABLED", "INVITED")),
            email,
            rng.choices(("SUBSCRIBED", "NOT_SUBSCRIBED", "UNSUBSCRIBED", "PENDING", None),
                        (30, 25, 20, 15, 10))[0],
            rng.choice(("ACTIVE", "CANCELLED", "EXPIRED", "FAILED", "NEVER_SUBSCRIBED", "PAUSED",
                        None)),
            rng.choices((tier, "HIGH", "MEDIUM", "LOW", None), (50, 10, 12, 12, 16))[0],
            rng.choice(RFM),
            rng.choice((*DOMAINS, "example.org")),
            language if rng.random() < 0.94 else None,
            rng.randint(1, 12) * 100 + rng.randint(1, 28) if rng.random() < 0.8 else None,
        ))
    return rows


def _day(rng: Random, reach: int) -> int:
    """A day up to `reach` days ago: half the time within a day of one that requests mention."""
    today = TODAY.toordinal()
    draw = rng.random()
    if draw < 0.5:
        return today - rng.choice(DAYS_AGO) + rng.choice((-1, 0, 1))
    if draw < 0.6:
        return rng.choice(DAYS).toordinal() + rng.choice((-1, 0, 1))
    return today - rng.randrange(reach)


def _orders(rng: Random, customer: int, rows: Rows) -> tuple[list[int], int]:
    """Add a customer's orders and lines; returns the days of the orders and the cents spent."""
    count = rng.choices((0, 1, 2, 3, 4, 5, 6, 8), (18, 20, 16, 14, 11, 9, 7, 5))[0]
    if count == 0:
        return [], 0
    if rng.random() < 0.5:
        total = rng.choice(AMOUNTS) * 100 + rng.choice((-1, 0, 1))
    else:
        total = max(100 * count, round(100 * rng.lognormvariate(5.1, 0.9)))
    weights = [rng.random() + 0.2 for _ in range(count)]
    amounts = [int(total * weight / sum(weights)) for weight in weights]
    amounts[0] += total - sum(amounts)
    days = [_day(rng, 600) for _ in range(count)]
    for day, amount in zip(days, amounts, strict=True):
        rows["orders"].append((customer, day, amount, rng.randint(1, 3), rng.choice((11, 12))))
        for product in rng.sample(range(101, 113), rng.choice((1, 1, 2, 3))):
            tag = ("summer", "winter", "sale")[product % 3]
            rows["lines"].append((customer, day, product, tag, rng.randint(1, 4)))
    return days, total


def _decoys(rng: Random, *, subscribed: bool, spent: int) -> list[str]:
    decoys = []
    if rng.random() < (0.9 if subscribed else 0.06):
        decoys.append("newsletter")
    if rng.random() < (0.8 if spent > 40_000 else 0.05):
        decoys.append("vip")
    return decoys


def _labels(
    rng: Random, customer: int, rows: Rows, *, country: str, decoys: list[str],
    plain_tags: Sequence[str],
) -> None:
    tags = [*decoys, *(tag for tag in plain_tags if rng.random() < 0.22)]
    rows["labels"] += [(customer, "customer_tags", tag) for tag in tags]
    homes = {country, rng.choice(tuple(COUNTRIES))} if rng.random() < 0.35 else {country}
    for home in sorted(homes):
        region, city, _ = COUNTRIES[home]
        rows["labels"].append((customer, "customer_countries", home))
        rows["labels"].append((customer, "customer_regions", region))
        if rng.random() < 0.8:
            rows["labels"].append((customer, "customer_cities", city))


def _events(rng: Random, customer: int, rows: Rows) -> None:
    for kind in EMAIL_EVENTS:
        frequent = kind in ("clicked", "delivered", "opened")
        count = rng.choice((0, 0, 1, 2, 3, 4, 5)) if frequent else rng.choice((0, 0, 0, 1))
        for _ in range(count):
            rows["email_events"].append((customer, kind, _day(rng, 300), rng.randint(301, 306)))
    for kind, items in (("product_viewed", (101, 112)), ("collection_viewed", (201, 206))):
        for _ in range(rng.choice((0, 1, 2, 3, 4, 5))):
            rows["views"].append((customer, kind, _day(rng, 200), rng.randint(*items)))
    if rng.random() < 0.3:
        expiry = TODAY.toordinal() + rng.randrange(200) if rng.random() < 0.7 else None
        balance = rng.choice((0, 1_000, 2_500, 5_000, 10_000))
        rows["credit"].append(
            (customer, rng.choice(("USD", "EUR")), balance, expiry, _day(rng, 200))
        )
