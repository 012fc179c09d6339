"""Code inside an answer: where it is, and which inputs and outputs the request shows."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MAX_CODE = 20_000
"""Characters of code that are parsed; what follows is not looked at."""
_FENCE = re.compile(r"```[ \t]*(\w*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_CODE = re.compile(
    r"^[ \t]*(?:def |class |import |from \w+ import |async def |assert )", re.MULTILINE
)
_LANGUAGES = frozenset({"", "python", "py", "python3"})
_ARROW = re.compile(r"(\w+\(.*\))\s*(?:==|->|=>|→|returns?|is)\s*(.+)$")
MAX_EXAMPLES = 32


def code_of(answer: str) -> str:
    """Python in the answer: its fenced blocks, else the whole answer if it reads like code, else
    an empty string."""
    text = answer[:MAX_CODE]
    if "```" in text:
        return "\n".join(body for tag, body in _FENCE.findall(text) if tag.lower() in _LANGUAGES)
    return text if _CODE.search(text) else ""


def parsed(code: str) -> ast.Module | None:
    """The syntax tree, or None if this is no Python or is nested beyond reason."""
    if not code.strip():
        return None
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@dataclass(frozen=True, slots=True)
class Example:
    """One test that the request shows: literal arguments and the literal result."""

    inputs: tuple[Any, ...]
    output: Any


@lru_cache(maxsize=256)
def examples(request: str) -> tuple[Example, ...]:
    """Calls with literal arguments and results in the request: `assert f(4) == 'IV'`,
    `>>> f(4)` with the result on the next line, `f(4) -> 'IV'`, `assert not f(4)`."""
    lines = request.splitlines()
    found = []
    for number, line in enumerate(lines):
        if "(" not in line:
            continue
        following = lines[number + 1].strip() if number + 1 < len(lines) else ""
        example = _example(line.strip(), following)
        if example is not None:
            found.append(example)
        if len(found) == MAX_EXAMPLES:
            break
    return tuple(found)


@lru_cache(maxsize=256)
def prose(request: str) -> str:
    """The request without the lines that show a test, and without the results of doctests."""
    kept, result = [], False
    for line in request.splitlines():
        bare = line.strip()
        test = bare.startswith((">>>", "assert ")) or _ARROW.search(bare) is not None
        if not test and not result:
            kept.append(line)
        result = bare.startswith(">>>")
    return "\n".join(kept)


def _example(line: str, following: str) -> Example | None:
    truth: Any = True
    if line.startswith(">>>"):
        call, result = line[3:].strip(), following
    else:
        line = line.removeprefix("assert ").strip().strip("`")
        if line.startswith("not "):
            line, truth = line[4:].strip(), False
        arrow = _ARROW.search(line)
        call, result = arrow.groups() if arrow else (line, repr(truth))
    try:
        tree = ast.parse(call.strip(), mode="eval").body
        if not isinstance(tree, ast.Call) or tree.keywords:
            return None
        inputs = tuple(ast.literal_eval(item) for item in tree.args)
        return Example(inputs, ast.literal_eval(result.strip().rstrip("`.,;")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
