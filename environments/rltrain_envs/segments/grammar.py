"""Recursive-descent parser of the segment query language.

    query  := and ("OR" and)*                  and := atom ("AND" atom)*
    atom   := "(" query ")" | clause
    clause := name cmp value | name BETWEEN value AND value | name [NOT] CONTAINS string
            | name IS [NOT] NULL | name [NOT] MATCHES "(" [param ("," param)*] ")"
            | anniversary "(" string ")" ("=" value | BETWEEN value AND value)
    param  := name cmp value | name BETWEEN value AND value
            | name [NOT] IN "(" value ("," value)* ")"
    value  := string | number | YYYY-MM-DD | [+-]N(d|w|m|y) | today | yesterday

The shape is the public reference of Shopify's segment query language (shopify.dev, "Segment query
language reference"); which names and types exist is the schema's business, not the grammar's.
"""

from __future__ import annotations

import re
from datetime import date

from rltrain_envs.segments.syntax import (
    COMPARATORS,
    Anniversary,
    Answer,
    Clause,
    Condition,
    Day,
    Matches,
    Number,
    Query,
    Refusal,
    RefusalReason,
    Text,
    Value,
    conjunction,
    disjunction,
    offset,
)
from rltrain_envs.segments.tokens import Token, tokenize

MAX_DEPTH = 8
_REFUSAL = re.compile(r"CANNOT:\s*(\w*)\s*")
_AGO = {"7_days_ago": (-7, "d"), "30_days_ago": (-30, "d"), "90_days_ago": (-90, "d"),
        "12_months_ago": (-12, "m")}
# Spellings seen in the wild, and the one that is printed.
_ALIASES = {"storefront_event.product_viewed": "storefront.product_viewed",
            "storefront_event.collection_viewed": "storefront.collection_viewed"}


class QuerySyntaxError(ValueError):
    """The text is not a query. Says where, and what was expected there."""

    def __init__(self, position: int, expected: str, found: str) -> None:
        super().__init__(f"expected {expected} at {position}, found {found or 'the end'}")
        self.position = position
        self.expected = expected


def parse(text: str) -> Answer:
    """Read a query or a `CANNOT: reason`. Raises `QuerySyntaxError`."""
    refusal = _REFUSAL.match(text)
    if refusal:
        reasons = [reason.value for reason in RefusalReason]
        if refusal.group(1) not in reasons or refusal.end() != len(text):
            found = text[refusal.start(1):]
            raise QuerySyntaxError(refusal.start(1), f"one of {', '.join(reasons)}", repr(found))
        return Refusal(reason=RefusalReason(refusal.group(1)))
    return _Parser(text).whole()


def clean_prefix(text: str) -> int:
    """How many leading characters form complete clauses; 0 if not even the first one reads."""
    parser = _Parser(text)
    try:
        parser.whole()
    except QuerySyntaxError:
        return parser.complete
    return len(text)


class _Parser:
    """One pass over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self._tokens = tokenize(text)
        self._index = 0
        self._depth = 0
        self.complete = 0
        """End of the last atom that was read outside any bracket."""

    def whole(self) -> Query:
        query = self._or()
        if self._token.kind != "end":
            raise self._error("AND, OR or the end")
        return query

    @property
    def _token(self) -> Token:
        return self._tokens[self._index]

    def _error(self, expected: str) -> QuerySyntaxError:
        token = self._token
        return QuerySyntaxError(token.start, expected, repr(token.text) if token.text else "")

    def _take(self, kind: str, *texts: str) -> Token | None:
        token = self._token
        if token.kind != kind or (texts and token.text not in texts):
            return None
        self._index += 1
        return token

    def _need(self, kind: str, *texts: str) -> Token:
        token = self._take(kind, *texts)
        if token is None:
            wanted = " or ".join(f"'{text}'" for text in texts)
            raise self._error(wanted or f"a {kind}")
        return token

    def _or(self) -> Query:
        items = [self._and()]
        while self._take("keyword", "OR"):
            items.append(self._and())
        return disjunction(items)

    def _and(self) -> Query:
        items = [self._atom()]
        while self._take("keyword", "AND"):
            items.append(self._atom())
        return conjunction(items)

    def _atom(self) -> Query:
        query: Query
        if self._take("mark", "("):
            self._depth += 1
            # A bound on brackets keeps a hostile answer from exhausting the stack.
            if self._depth > MAX_DEPTH:
                raise self._error(f"at most {MAX_DEPTH} nested brackets")
            query = self._or()
            self._need("mark", ")")
            self._depth -= 1
        else:
            query = self._clause()
        if self._depth == 0:
            self.complete = self._tokens[self._index - 1].end
        return query

    def _clause(self) -> Clause:
        token = self._take("name")
        if token is None:
            raise self._error("an attribute, a function or '('")
        name = _ALIASES.get(token.text, token.text)
        if name == "anniversary" and self._take("mark", "("):
            metafield = self._text(self._need("string"))
            self._need("mark", ")")
            return self._anniversary(metafield.value)
        negated = self._take("keyword", "NOT") is not None
        if not negated and self._take("keyword", "NOT_MATCHES"):
            return self._matches(name, negated=True)
        if self._take("keyword", "MATCHES"):
            return self._matches(name, negated=negated)
        if self._take("keyword", "CONTAINS"):
            operator = "NOT CONTAINS" if negated else "CONTAINS"
            values = (self._text(self._need("string")),)
            return Condition(name=name, operator=operator, values=values)
        if negated:
            raise self._error("CONTAINS or MATCHES")
        if self._take("keyword", "IS"):
            operator = "IS NOT NULL" if self._take("keyword", "NOT") else "IS NULL"
            self._need("keyword", "NULL")
            return Condition(name=name, operator=operator)
        return self._compare(name, "an operator")

    def _compare(self, name: str, expected: str) -> Condition:
        if self._take("keyword", "BETWEEN"):
            low = self._value()
            self._need("keyword", "AND")
            return Condition(name=name, operator="BETWEEN", values=(low, self._value()))
        operator = self._take("mark", *COMPARATORS)
        if operator is None:
            raise self._error(expected)
        return Condition(name=name, operator=operator.text, values=(self._value(),))

    def _anniversary(self, metafield: str) -> Anniversary:
        compared = self._compare("anniversary", "'=' or BETWEEN")
        return Anniversary(
            metafield=metafield, operator=compared.operator, values=compared.values
        )

    def _matches(self, function: str, *, negated: bool) -> Matches:
        self._need("mark", "(")
        parameters: list[Condition] = []
        if not self._take("mark", ")"):
            parameters.append(self._parameter())
            while self._need("mark", ",", ")").text == ",":
                parameters.append(self._parameter())
        return Matches(function=function, parameters=tuple(parameters), negated=negated)

    def _parameter(self) -> Condition:
        token = self._take("name")
        if token is None:
            raise self._error("a parameter")
        negated = self._take("keyword", "NOT") is not None
        if not self._take("keyword", "IN"):
            if negated:
                raise self._error("IN")
            return self._compare(token.text, "an operator or IN")
        self._need("mark", "(")
        values = [self._value()]
        while self._need("mark", ",", ")").text == ",":
            values.append(self._value())
        operator = "NOT IN" if negated else "IN"
        return Condition(name=token.text, operator=operator, values=tuple(values))

    def _text(self, token: Token) -> Text:
        return Text(value=re.sub(r"\\(.)", r"\1", token.text[1:-1]))

    def _value(self) -> Value:
        token = self._token
        value = self._read(token)
        if value is None:
            raise self._error("a value")
        self._index += 1
        return value

    def _read(self, token: Token) -> Value | None:
        if token.kind == "string":
            return self._text(token)
        if token.kind == "number":
            number = float(token.text)
            return Number(value=int(number) if number == int(number) else number)
        if token.kind == "offset":
            return offset(int(token.text[:-1]), token.text[-1])
        if token.kind == "ago":
            return offset(*_AGO[token.text])
        if token.kind == "keyword" and token.text in ("TODAY", "YESTERDAY"):
            return offset(0 if token.text == "TODAY" else -1, "d")
        if token.kind == "day":
            try:
                return Day(value=date.fromisoformat(token.text))
            except ValueError:
                raise self._error("a day of the calendar") from None
        return None
