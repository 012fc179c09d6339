"""Runs queries on the stores. Two queries mean the same if they select the same customers in all.

`select` is the plain path: one SQL statement for the whole query. `masks` is the fast one: each
clause runs once per store, is kept as a bit per customer, and clauses combine by `&` and `|`.
That is exact because every clause selects a definite set of customers. A test compares the two.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import date
from functools import lru_cache, reduce
from operator import and_, or_
from threading import Lock

from rltrain.errors import EnvironmentFault
from rltrain_envs.segments.schema import Schema
from rltrain_envs.segments.sql import Compiled, compile_clause, compile_query
from rltrain_envs.segments.stores import Store
from rltrain_envs.segments.syntax import And, Clause, Or, Query

Masks = tuple[int, ...]
"""One integer per store; bit `i` is set if customer `i` is selected."""


class Engine:
    """The stores, and a cache of what single clauses select in them (the latest 8,192)."""

    def __init__(self, stores: Sequence[Store], schema: Schema, today: date) -> None:
        self._stores = tuple(stores)
        self._schema = schema
        self._today = today
        self._lock = Lock()
        self._clause_masks = lru_cache(maxsize=8192)(self._run_clause)

    def select(self, query: Query) -> tuple[frozenset[int], ...]:
        """Ids of the selected customers, per store. Raises `EnvironmentFault`."""
        compiled = compile_query(query, self._schema, self._today)
        return tuple(frozenset(ids) for ids in self._run(compiled))

    def masks(self, query: Query) -> Masks:
        """What `select` gives, as bits. The query must be valid. Raises `EnvironmentFault`."""
        if isinstance(query, And | Or):
            parts = [self.masks(item) for item in query.items]
            join = and_ if isinstance(query, And) else or_
            return tuple(reduce(join, column) for column in zip(*parts, strict=True))
        return self._clause_masks(query)

    def coverage(self, query: Query) -> tuple[float, ...]:
        """Share of the customers that the query selects, per store, in [0, 1]."""
        return tuple(
            mask.bit_count() / store.customers
            for mask, store in zip(self.masks(query), self._stores, strict=True)
        )

    def _run_clause(self, clause: Clause) -> Masks:
        compiled = compile_clause(clause, self._schema, self._today)
        return tuple(sum(1 << found for found in ids) for ids in self._run(compiled))

    def _run(self, compiled: Compiled) -> list[list[int]]:
        text, values = compiled
        statement = f"SELECT c.id FROM customers AS c WHERE {text}"
        try:
            # One connection must not be read by two threads at a time.
            with self._lock:
                return [
                    [row[0] for row in store.connection.execute(statement, values)]
                    for store in self._stores
                ]
        except sqlite3.Error as error:
            raise EnvironmentFault(f"the store failed on {statement!r}: {error}") from error
