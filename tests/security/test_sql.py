"""The stores behind `segments` cannot be changed, by whatever a policy writes."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from rltrain.types import Episode, Judged, Task, Turn
from rltrain_envs.segments import build
from rltrain_envs.segments.stores import build_stores

INJECTIONS = (
    "'; DROP TABLE customers; --",
    "customer_tags CONTAINS 'x''; DROP TABLE customers; --'",
    "customer_tags CONTAINS 'x\\'; DELETE FROM labels; --'",
    "amount_spent > 1; DELETE FROM orders",
    "amount_spent > 1) OR 1=1; UPDATE customers SET amount_spent=0; --",
    "customer_countries CONTAINS 'IT' UNION SELECT * FROM credit",
    "amount_spent > (SELECT MAX(amount_spent) FROM customers)",
    "amount_spent > 1 /* */; ATTACH DATABASE '/tmp/rltrain-attached' AS x",
    "PRAGMA query_only = OFF",
    "id = 1; PRAGMA writable_schema = 1",
    "customer_tags CONTAINS 'x' AND load_extension('/tmp/evil.so')",
    "\x00customer_tags CONTAINS 'x'\x00; DROP TABLE customers",
    "customer_tags CONTAINS '" + "'" * 399,
    "products_purchased(tag: 'x''); DROP TABLE lines; --') = TRUE",
)
WRITES = (
    "INSERT INTO labels VALUES (1, 'customer_tags', 'vip')",
    "UPDATE customers SET amount_spent = 0",
    "DELETE FROM orders",
    "DROP TABLE customers",
    "CREATE TABLE x (y)",
    "CREATE TEMP TABLE x (y)",
    "CREATE TEMP TRIGGER t AFTER INSERT ON labels BEGIN SELECT 1; END",
    "ALTER TABLE customers RENAME TO gone",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = 1",
    "ATTACH DATABASE '/tmp/rltrain-attached' AS x",
    "VACUUM INTO '/tmp/rltrain-attached'",
    "REINDEX",
    "ANALYZE",
    "BEGIN",
    "SAVEPOINT x",
)


STORES = build_stores(["vip", "newsletter"])


@pytest.fixture(scope="module")
def env() -> Any:
    return build()


def contents(env: Any) -> list[list[Any]]:
    """Every row of every table of every store, read through the connections themselves."""
    tables = ("customers", "labels", "orders", "lines", "email_events", "views", "credit")
    return [
        [store.connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
        for store in env._verifier.engine._stores
    ]


def judged(task: Task, answer: str) -> Judged:
    turn = Turn(prompt_ids=(), completion_ids=(), logprobs=(), version=0, stop_reason="stop",
                text=answer)  # fmt: skip
    episode = Episode(task=task, sample=0, turns=(turn,), answer=answer, ended="answered")
    return Judged(episode=episode, verdicts=(), reward=0.0, truth=None)


def test_no_answer_changes_a_store_on_any_path_that_takes_one(env: Any) -> None:
    before = contents(env)
    assert before[0][0]
    task = next(env.tasks("test", 0))
    for answer in INJECTIONS:
        for check in env.checks().values():
            asyncio.run(check(task, answer))
        for detector in env.detectors().values():
            detector(judged(task, answer))
        assert env.truth(task, answer) == 0.0
        canonical = env.canonical(task, answer)
        if canonical is not None:
            env.judge_prompt(task, canonical)
    assert contents(env) == before
    assert not Path("/tmp/rltrain-attached").exists()


@pytest.mark.parametrize("statement", WRITES)
def test_a_store_refuses_every_statement_but_a_select(statement: str) -> None:
    store = STORES[0]
    with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|authorization denied"):
        store.connection.execute(statement)
    assert store.connection.execute("SELECT COUNT(*) FROM customers").fetchone() == (420,)
    assert not Path("/tmp/rltrain-attached").exists()
