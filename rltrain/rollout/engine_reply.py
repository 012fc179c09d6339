"""What an engine's answer says, as a `Turn`: pure parsing, strict about shape.

vLLM writes log-probabilities that are NaN, -inf or missing as -9999; they become NaN again here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from rltrain.errors import EngineFault
from rltrain.types import Turn

Decode = Callable[[list[int]], str]
T = TypeVar("T")

_FLOOR = -9999.0
_UNPUSHED = "default"  # vLLM's version string before the first push
ENDED = ("stop", "length")
"""How a completion ends that is whole."""


class Entry(msgspec.Struct):
    logprob: float | None = None


class Logprobs(msgspec.Struct):
    content: list[Entry] | None = None


class Choice(msgspec.Struct):
    token_ids: list[int]
    finish_reason: str | None
    index: int = 0
    logprobs: Logprobs | None = None
    weight_versions: list[dict[str, Any]] | None = None


class Generated(msgspec.Struct):
    choices: list[Choice]
    prompt_logprobs: list[dict[str, Entry] | None] | None = None


def turn(prompt_ids: tuple[int, ...], choice: Choice, decode: Decode) -> Turn:
    """One completion as a turn. Raises `EngineFault` if it was aborted or bears no version."""
    if choice.finish_reason not in ENDED:
        raise EngineFault(
            f"the engine ended a completion with {choice.finish_reason!r} instead of stop or "
            "length; if nobody aborted it, read the engine's log"
        )
    return Turn(
        prompt_ids=prompt_ids,
        completion_ids=tuple(choice.token_ids),
        logprobs=_logprobs(choice),
        version=_version(choice.weight_versions),
        stop_reason=choice.finish_reason,
        text=decode(choice.token_ids),
    )


def is_proven(choice: Choice) -> bool:
    """Whether no token was sampled from weights that nobody pushed and stamped."""
    return all(str(span.get("version")).isdecimal() for span in choice.weight_versions or [])


def finite(value: float | None) -> float:
    if value is None or not math.isfinite(value) or value <= _FLOOR:
        return math.nan
    return value


def _logprobs(choice: Choice) -> tuple[float, ...]:
    content = (choice.logprobs.content if choice.logprobs else None) or []
    values = [finite(entry.logprob) for entry in content[: len(choice.token_ids)]]
    return (*values, *[math.nan] * (len(choice.token_ids) - len(values)))


def _version(spans: list[dict[str, Any]] | None) -> int:
    """Oldest version; 0 for an engine that has had no push, so that it counts as stale."""
    if not spans:
        raise EngineFault("the engine reports no weight versions; rltrain needs vLLM 0.32 or newer")
    try:
        return min(0 if span["version"] == _UNPUSHED else int(span["version"]) for span in spans)
    except ValueError as error:
        raise EngineFault(
            f"tokens were sampled from unproven weights ({spans[-1]['version']!r}): a push failed"
        ) from error


def decode_json(content: bytes, kind: type[T]) -> T:
    """JSON of a known shape. Raises `EngineFault` if it has another."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise EngineFault(f"the engine's answer makes no sense: {error}") from error
