"""JSON in an answer, read strictly: one document, and every reader sees the same one.

Readers of JSON differ where the format is loose: of a doubled key some keep the first and some the
last, some take NaN, some stop at a depth. What could be read in two ways is refused here, with a
reason that a program can read: [{path, rule, expected, got}], where `got` is a type and never the
policy's text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

MAX_CHARS = 65_536
MAX_DEPTH = 64
MAX_DIGITS = 40
"""Of an integer; beyond it, sums on it overflow."""
SHOWN = 4
"""Findings in one reason."""
_TEXT = 80
_FENCE = "```"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    path: str = ""
    """JSON pointer to where; empty for the whole document."""
    rule: str
    expected: str
    got: str
    """Its JSON type, or `text` for what is no JSON."""


class Malformed(Exception):
    """The answer holds no such document. Internal: becomes a failed verdict."""

    def __init__(self, rule: str, expected: str, got: str = "text", path: str = "") -> None:
        super().__init__(rule)
        self.finding = Finding(path=path, rule=rule, expected=expected, got=got)


def reason(code: str, findings: Sequence[Finding]) -> str:
    """`code: [...]`, ASCII only; after the colon stands a JSON list of at most `SHOWN` findings."""
    cut = [
        {key: value[:_TEXT] for key, value in asdict(finding).items()}
        for finding in findings[:SHOWN]
    ]
    return f"{code}: {json.dumps(cut)}"


def body(answer: str, extract: str, tags: Sequence[str]) -> str:
    """The document's text: the whole answer (`text`), or its one fenced block (`block`), whose tag
    is none or one of `tags`. Raises `Malformed`."""
    if len(answer) > MAX_CHARS:
        raise Malformed("size", f"at most {MAX_CHARS} characters")
    if extract == "text":
        return answer
    lines = answer.split("\n")
    fences = [i for i, line in enumerate(lines) if line.lstrip().startswith(_FENCE)]
    if len(fences) != 2 or lines[fences[1]].strip() != _FENCE:
        raise Malformed("block", "exactly one fenced block")
    tag = lines[fences[0]].strip().removeprefix(_FENCE).strip()
    if tag and tag not in tags:
        raise Malformed("block", f"a block tagged {' or '.join(tags)}")
    return "\n".join(lines[fences[0] + 1 : fences[1]])


def parse(text: str) -> Any:
    """The JSON document. Raises `Malformed` for doubled keys, NaN and infinities, numbers that are
    too large, text that is no Unicode, and what is nested deeper than `MAX_DEPTH`."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except RecursionError:
        raise Malformed("depth", f"at most {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise Malformed("json", f"{error.msg} at {error.pos}") from None
    _check_tree(value)
    return value


def type_name(value: Any) -> str:
    """JSON's name of a value's type."""
    if value is None:
        return "null"
    names = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"),
             (list, "array"), (dict, "object"))  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise Malformed("duplicate_key", f"{double!r} once", "object")
    return made


def _constant(name: str) -> Any:
    raise Malformed("number", "a finite number", name)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed("number", "a number that a double holds", "number")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise Malformed("number", f"at most {MAX_DIGITS} digits", "integer")
    return int(text)


def _check_tree(root: Any) -> None:
    """Depth and Unicode of the whole tree, without recursion."""
    level, depth = [root], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise Malformed("depth", f"at most {MAX_DEPTH} levels")
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not _is_unicode(value):
                raise Malformed("unicode", "no lone surrogate", "string")
        level = below


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
