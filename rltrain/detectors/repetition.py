"""Text that goes round in circles.

Two signs, each enough: the end of a turn repeats one unit again and again (a decoding loop), or
most of its word 4-grams are repeats *and* it compresses far better than text does. Tables and
lists repeat their frame but not their values, so they show neither.
"""

from __future__ import annotations

import zlib

from rltrain.types import Judged

TAIL_CHARS = 2_000
"""Only the end is searched for a loop; a loop that stopped is caught by the other sign."""
LOOP_CHARS = 160
LOOP_TIMES = 8
NGRAM = 4
MIN_WORDS = 60
REPEATED_SHARE = 0.6
COMPRESSION = 0.15
"""Compressed bytes per byte; English prose of some kB has 0.4 to 0.5, a JSON table 0.2."""


class Repetition:
    """A `Detector` of degenerate repetition in any turn of an episode."""

    version = "1"

    def __call__(self, judged: Judged) -> str | None:
        """The repeated unit or the measured shares, or None."""
        for turn in judged.episode.turns:
            found = _loop(turn.text) or _redundant(turn.text)
            if found:
                return found
        return None


def repeated_ngrams(words: list[str], n: int = NGRAM) -> float:
    """Share of n-grams that occurred before, 1 - unique / total; 0 for fewer than n words."""
    total = len(words) - n + 1
    if total <= 0:
        return 0.0
    return 1.0 - len({tuple(words[i : i + n]) for i in range(total)}) / total


def tail_period(text: str) -> tuple[int, int]:
    """(length, times) of the unit whose repetition covers most of the end of `text`.

    The prefix function of the reversed tail gives the smallest period of every suffix at once
    (Knuth, Morris, Pratt 1977), in linear time. (0, 0) if nothing repeats `LOOP_TIMES`.
    """
    reversed_tail = text[-TAIL_CHARS:][::-1]
    border = [0] * len(reversed_tail)
    best = (0, 0)
    for i in range(1, len(reversed_tail)):
        k = border[i - 1]
        while k and reversed_tail[i] != reversed_tail[k]:
            k = border[k - 1]
        border[i] = k + (reversed_tail[i] == reversed_tail[k])
        period = i + 1 - border[i]
        if (i + 1) // period >= LOOP_TIMES:
            best = (period, (i + 1) // period)
    return best


def _loop(text: str) -> str | None:
    stripped = text.rstrip()
    period, times = tail_period(stripped)
    if period * times < LOOP_CHARS:
        return None
    return f"the end repeats {stripped[-period:][:60]!r} {times} times"


def _redundant(text: str) -> str | None:
    words = text.split()
    if len(words) < MIN_WORDS:
        return None
    share = repeated_ngrams(words)
    if share < REPEATED_SHARE:
        return None
    raw = text.encode()
    ratio = len(zlib.compress(raw, 6)) / len(raw)
    if ratio > COMPRESSION:
        return None
    return f"{share:.0%} of {NGRAM}-grams are repeats, compresses to {ratio:.0%}"
