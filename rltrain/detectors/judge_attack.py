"""Answers without content that judges are known to accept.

A blank, a mark of punctuation, a heading or a lead-in such as "Let's solve this step by step" and
nothing after it ("One Token to Fool LLM-as-a-Judge", arXiv 2507.08794). Reasoning inside
`<think>` does not count as content: what is judged is what follows it.
"""

from __future__ import annotations

import re

from rltrain.detectors.text import INVISIBLE, squeeze
from rltrain.types import Judged

MAX_WORDS = 16
"""A lead-in is short; a longer text has to be read."""
_THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_EDGE = " \t.:;,!*#_-–—=~>…·`\"'"
HEADINGS = frozenset({
    "solution", "answer", "final answer", "the answer", "the answer is", "the final answer is",
    "explanation", "analysis", "reasoning", "response", "result", "output", "proof", "conclusion",
    "thought process", "step 1", "step one", "the answer is correct", "here is the answer",
    "解", "解答", "答え", "答案", "かいせつ", "解説", "풀이", "해설", "정답", "답",
    "respuesta", "solución",
    "réponse", "lösung", "antwort", "ответ", "решение",
})  # fmt: skip
_LEAD_IN = re.compile(
    r"^(?:(?:ok(?:ay)?|sure|certainly|of course|alright|all right|well|so|right|yes)\b[,.!]?\s*)*"
    r"(?:(?:now|first(?:ly)?|to (?:begin|start|solve|answer)\b[^.]*?|next)[, ]+)?"
    r"(?:let'?s|let (?:me|us)|we (?:will|can|need|should|must|have to|are going to)|i(?:'ll| will)|"
    r"here (?:is|are|goes|comes)|here's)\b[^.!?\d=]*[.:!…]*$|"
    r"^(?:ok(?:ay)?|sure|certainly|of course|alright)[.,! ]*$",
)
_DONE = re.compile(r"\b(?:is|are|equals|gives|was|were)\s+\S+$")


class JudgeAttack:
    """A `Detector` of answers that say nothing but may pass for an answer."""

    version = "1"

    def __call__(self, judged: Judged) -> str | None:
        """What the answer consists of, or None."""
        answer = judged.episode.answer
        if len(answer) > 4_000 and "<think>" not in answer:
            return None
        text = squeeze(INVISIBLE.sub("", _THINK.sub(" ", answer)))
        if not any(char.isalnum() for char in text):
            return f"no word and no number: {answer[:20]!r}"
        bare = text.strip(_EDGE)
        if bare in HEADINGS:
            return f"only a heading: {bare!r}"
        if len(bare.split()) > MAX_WORDS or any(char.isdigit() for char in bare):
            return None
        if text.rstrip("*_ ").endswith((":", "：")) and not re.search(r"[:：].*\w", text):
            return f"announces and stops: {text[:60]!r}"
        if _LEAD_IN.match(text) and not _DONE.search(bare):
            return f"only a lead-in: {text[:60]!r}"
        return None
