"""What can be said about an answer: is it a query, is it valid, does it select the right people.

    text -> read -> syntax tree -> violations -> score against the gold query, by execution
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from rltrain.types import Task
from rltrain_envs.segments.execute import Engine
from rltrain_envs.segments.grammar import QuerySyntaxError, parse
from rltrain_envs.segments.schema import Schema, load_schema, violations
from rltrain_envs.segments.stores import TODAY, build_stores
from rltrain_envs.segments.syntax import Answer, Query, Refusal, clauses, print_clause

PARTIAL = 0.3
"""Upper bound of the credit for a wrong answer, far below the 1.0 of a right one."""


class Verifier:
    """Reads, validates and executes answers; caches all three, since siblings repeat them."""

    def __init__(self, schema: Schema, engine: Engine) -> None:
        self.schema = schema
        self.engine = engine
        self.read = lru_cache(maxsize=8192)(self._read)
        self.violations = lru_cache(maxsize=8192)(self._violations)

    def query(self, text: str) -> Query | None:
        """The text as a query; None for a refusal or for anything that does not parse."""
        found = self.read(text)
        return None if isinstance(found, Refusal | QuerySyntaxError) else found

    def valid_query(self, text: str) -> Query | None:
        """The text as a query that the schema allows, or None."""
        query = self.query(text)
        return None if query is None or self.violations(query) else query

    def score(self, task: Task, text: str) -> tuple[float, str]:
        """1.0 if the answer selects exactly the right customers in all stores, else 0.0, and why.

        A refusal is right if and only if the task is unanswerable; its reason is not scored."""
        found = self.read(text)
        if isinstance(found, QuerySyntaxError):
            return 0.0, f"syntax: {found}"
        if isinstance(found, Refusal):
            answerable = bool(task.data["answerable"])
            return float(not answerable), "refused: answerable" if answerable else ""
        if not task.data["answerable"]:
            return 0.0, "answered: unanswerable"
        reasons = self.violations(found)
        if reasons:
            return 0.0, f"schema: {reasons[0]}"
        gold = self.query(task.data["gold"])
        assert gold is not None, f"task {task.id} has no gold query"
        wanted, got = self.engine.masks(gold), self.engine.masks(found)
        if wanted == got:
            return 1.0, ""
        missing, extra = wanted[0] & ~got[0], got[0] & ~wanted[0]
        return 0.0, (
            f"wrong: {sum(a != b for a, b in zip(wanted, got, strict=True))} stores differ; in the "
            f"first {missing.bit_count()} customers are missing and {extra.bit_count()} too many"
        )

    def graded(self, task: Task, text: str) -> tuple[float, str]:
        """Like `score`, with partial credit below PARTIAL for a valid but wrong query: the F1 of
        its clauses against the gold ones, printed canonically, times PARTIAL. Repeated and
        superfluous clauses cost, so listing more does not pay; refusals earn no part."""
        score, reason = self.score(task, text)
        found, gold = self.valid_query(text), self.query(task.data["gold"])
        if score or found is None or gold is None:
            return score, reason
        wanted = Counter(print_clause(clause) for clause in clauses(gold))
        got = Counter(print_clause(clause) for clause in clauses(found))
        shared = (wanted & got).total()
        return PARTIAL * 2 * shared / (wanted.total() + got.total()), reason

    def _read(self, text: str) -> Answer | QuerySyntaxError:
        try:
            return parse(text.strip())
        except QuerySyntaxError as error:
            # Kept without its traceback, which would pin the parser in the cache.
            return error.with_traceback(None)

    def _violations(self, query: Query) -> tuple[str, ...]:
        return violations(query, self.schema)


def build_verifier() -> Verifier:
    """A verifier over the four stores (about a third of a second)."""
    schema = load_schema()
    engine = Engine(build_stores(sorted(schema.tags)), schema, TODAY)
    return Verifier(schema, engine)
