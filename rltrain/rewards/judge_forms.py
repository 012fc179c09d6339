"""What a judge's reply must look like, how a server is told, and what it is worth.

    Words     one of a few words                         -> its score
    a rubric  one JSON object with a verdict per criterion  -> a weighted score (`rubric.py`)

A reply of any other form is `Unusable`: it is asked for again, then it is a fault, never a 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rltrain.errors import UserError
from rltrain.rewards.chat import Unusable

MAX_TOKENS = 16
"""Enough for one word; a longer answer is not a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A usable reply."""

    text: str
    """The reply in its shortest form, which reads the same again."""
    score: float
    """In [0, 1]."""
    said: str
    """For the verdict's reason; holds nothing that the judge was free to write."""


class Form(Protocol):
    """One kind of reply."""

    def request(self, *, guided: bool) -> Mapping[str, object]:
        """What the request says about the reply. guided: the server decodes by vLLM's
        `structured_outputs`."""
        ...

    def read(self, reply: str) -> Reading:
        """Raises `Unusable`."""
        ...

    def describe(self) -> str:
        """What to answer, in words, for a connection test."""
        ...


class Words:
    """One word of a few."""

    def __init__(self, verdicts: Mapping[str, float], where: str = "rewards.judge") -> None:
        """verdicts: word -> score in [0, 1]. Raises `UserError` for impossible ones."""
        bad = {word: score for word, score in verdicts.items() if not 0.0 <= score <= 1.0}
        blank = [word for word in verdicts if not word or word != word.strip()]
        if not verdicts or bad or blank:
            raise UserError(
                f"{where}.verdicts must map words without surrounding spaces to scores in [0, 1]; "
                f"got {verdicts!r}."
            )
        self.verdicts = dict(verdicts)

    def request(self, *, guided: bool) -> Mapping[str, object]:
        body: dict[str, object] = {"max_tokens": max([MAX_TOKENS, *map(len, self.verdicts)])}
        if guided:
            body["structured_outputs"] = {"choice": list(self.verdicts)}
        return body

    def read(self, reply: str) -> Reading:
        word = reply.strip()
        if word not in self.verdicts:
            raise Unusable(f"it answered {word[:60]!r} instead of one of {list(self.verdicts)}")
        return Reading(text=word, score=self.verdicts[word], said=f"verdict: {word}")

    def describe(self) -> str:
        return f"Answer with exactly one of: {', '.join(self.verdicts)}."
