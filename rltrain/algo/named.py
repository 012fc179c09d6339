"""From a name in the config to a function: a key of a dict of ours, or anybody's import path."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from rltrain.errors import UserError


def find(key: str, name: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """`known[name]`, or the function that `package.module:function` names.

    Raises:
        UserError: if there is neither; `key` is the config's.
    """
    if name in known:
        return known[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise UserError(
            f"config {key}: {name!r} is not one of {', '.join(known)}, nor package.module:function"
        )
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"config {key}: {name} cannot be loaded: {error}") from error
    return found


def arguments(function: Callable[..., Any]) -> set[str]:
    """Names that may be given in the config: all but the first parameter, which is the data."""
    return set(list(signature(function).parameters)[1:])
