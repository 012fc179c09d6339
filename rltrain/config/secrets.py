"""Which environment variables hold secrets, and whether a config holds one of their values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

SECRET_NAME = re.compile(
    r"(?i)(^|[_.-])(api[_-]?key|access[_-]?key|token|secret|passw(or)?d|credential|dsn)s?$"
)
SHORTEST = 8
"""Characters. A shorter value would be found everywhere."""


def secret_values() -> Iterator[tuple[str, str]]:
    """(name, value) of every variable of this process whose name is that of a secret."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and SECRET_NAME.search(name):
            yield name, value


def leaked(tree: Any, key: str = "") -> tuple[str, str] | None:
    """The first key of a plain tree whose text holds a secret, and the variable that it is from."""
    if isinstance(tree, Mapping):
        entries: Iterator[tuple[str, Any]] = ((f"{key}.{k}" if key else str(k), v)
                                              for k, v in tree.items())
    elif isinstance(tree, list | tuple):
        entries = ((f"{key}.{place}", item) for place, item in enumerate(tree))
    else:
        found = (name for name, value in secret_values() if isinstance(tree, str) and value in tree)
        name = next(found, None)
        return None if name is None else (key, name)
    return next(filter(None, (leaked(value, inner) for inner, value in entries)), None)
