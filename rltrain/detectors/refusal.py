"""Answers that decline. A label, not an accusation: give it the action `keep`.

Whether declining was right depends on the task, which only an environment can say; this detector
counts how often it happens. English and Korean lexicon, at the beginning of the answer only, where
refusals are, so that a quoted "I can't" further down does not count.
"""

from __future__ import annotations

import re

from rltrain.detectors.text import squeeze
from rltrain.types import Judged

HEAD_CHARS = 200

_NOT = r"(?:can(?:no|')t|cannot|can not|could not|couldn't|won't|will not|am not able|'m not able|"
_NOT += r"am unable|'m unable|am not allowed|'m not allowed|must decline|have to decline)"
_ENGLISH = (
    rf"(?:^|[.!,:;] )(?:unfortunately,? |sorry,? (?:but )?|i apologi[sz]e,? (?:but )?)*"
    rf"(?:but )?i(?: |){_NOT}\b",
    r"^(?:it is|it's|this is) (?:not possible|impossible)\b",
    r"^(?:(?:i'm|i am) )?sorry,? (?:but )?(?:this|that|there|the|your|no)\b.{0,60}"
    r"\b(?:not|n't|cannot|no|unable)\b",
    r"^(?:this|that|the|your) (?:request|question|task) (?:cannot|can't|can not|could not) be\b",
    r"^as an? (?:ai|language model|assistant)\b.{0,60}\b(?:not|n't|cannot|unable)\b",
    r"^unable to (?:create|answer|help|comply|process|complete|fulfil|provide|generate)",
)
_KOREAN = (
    r"(?:죄송|미안)(?:합니다|하지만|해요)",
    r"(?:할|도와드릴|답변드릴|답변할|만들|생성할|처리할|제공할|도울|해드릴|드릴)\s*수(?:는|가)?\s*없",
    r"^(?:\S+\s+){0,4}(?:불가능|어렵)(?:합니다|습니다|해요)",
    r"(?:거절|거부)(?:합니다|하겠습니다|할게요)",
)
_PATTERN = re.compile("|".join(f"(?:{part})" for part in (*_ENGLISH, *_KOREAN)))


class Refusal:
    """A `Detector` of answers that decline the task. For counting: use the action `keep`."""

    version = "1"

    def __call__(self, judged: Judged) -> str | None:
        """The refusing words, or None."""
        head = squeeze(judged.episode.answer[:HEAD_CHARS]).replace("\u2019", "'")
        match = _PATTERN.search(head)
        return f"declines: {match.group().strip()!r}" if match else None
