"""Text -> tokens with character positions. Never raises: what it cannot read is a `bad` token."""

from __future__ import annotations

import re
from dataclasses import dataclass

KEYWORDS = frozenset([
    "AND", "BETWEEN", "CONTAINS", "IN", "IS", "MATCHES", "NOT", "NOT_MATCHES", "NULL", "OR",
    "TODAY", "YESTERDAY",
])
# Order matters: a relative day and a calendar day begin like a number.
_TOKEN = re.compile(
    r"""
    (?P<space>\ +)
  | (?P<string>'(?:[^'\\\x00-\x1f\x7f]|\\['\\])*')
  | (?P<ago>(?:7|30|90)_days_ago\b|12_months_ago\b)
  | (?P<day>\d{4}-\d{2}-\d{2}(?![\w-]))
  | (?P<offset>[+-]?\d{1,4}[dwmy](?!\w))
  | (?P<number>-?\d{1,12}(?:\.\d{1,4})?(?![\w.]))
  | (?P<name>[A-Za-z_]\w*(?:\.\w+)*)
  | (?P<mark>!=|>=|<=|[=<>(),])
    """,
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token."""

    kind: str
    """`keyword`, `name`, `string`, `number`, `day`, `offset`, `mark`, `bad` or `end`."""
    text: str
    """As written, but keywords in upper case."""
    start: int
    """Position of the first character, from 0."""
    end: int


def tokenize(text: str) -> list[Token]:
    """Tokens of the text, then `end`; after a `bad` token nothing more is read."""
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            tokens.append(Token(kind="bad", text=text[position], start=position, end=position + 1))
            break
        kind, found = str(match.lastgroup), match.group()
        if kind == "name" and found.upper() in KEYWORDS:
            kind, found = "keyword", found.upper()
        if kind != "space":
            tokens.append(Token(kind=kind, text=found, start=position, end=match.end()))
        position = match.end()
    tokens.append(Token(kind="end", text="", start=len(text), end=len(text)))
    return tokens
