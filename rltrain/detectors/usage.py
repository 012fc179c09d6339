"""One field or tool for everything: what no single answer shows.

A catch-all is a field or a tool that wrong answers to *different* requests reach for, far more
often than right answers do. Names are read from the text: identifiers with an underscore or a dot,
and the `"name"` of tool calls in JSON.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from scipy import stats  # type: ignore[import-untyped,unused-ignore]

from rltrain.detectors.run_level import MIN_TASKS, Alarm, short
from rltrain.detectors.text import request, squeeze
from rltrain.types import Group

VERSION = "1"
USE_SHARE = 0.5
"""Least share of the requests that a catch-all is used for."""
USE_ALPHA = 1e-3
SIBLINGS = 0.5
"""A task counts for a name if this share of its wrong siblings use it."""
_STRINGS = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
_NAME = re.compile(r"\b[A-Za-z]\w*(?:[._]\w+)+")
_TOOL = re.compile(r"[\"'](?:name|tool|function|action)[\"']\s*:\s*[\"']([\w.\-]+)[\"']")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNames:
    """The names that stand for one task, small enough to remember."""

    prompt: str
    wrong: tuple[str, ...]
    """Used by at least `SIBLINGS` of the answers not verified right; empty if all were."""
    right: tuple[str, ...]
    """Used by some answer that was verified right."""
    mixed: tuple[bool, bool]
    """Whether there were wrong ones and right ones at all."""


def names_used(text: str) -> frozenset[str]:
    """Fields and tools that a text names; what stands in quotes is a value, not a name."""
    tools = _TOOL.findall(text)
    return frozenset(tools or _NAME.findall(_STRINGS.sub(" ", text)))


def task_names(group: Group) -> TaskNames:
    """What one group says about the use of names."""
    wrong: Counter[str] = Counter()
    right: set[str] = set()
    wrongs = rights = 0
    for member in group.members:
        judged = member.judged
        used = names_used(judged.canonical or judged.episode.answer[:2_000])
        if judged.truth == 1.0:
            right |= used
            rights += 1
        else:
            wrong.update(used)
            wrongs += 1
    return TaskNames(
        prompt=short(squeeze(request(group.task))),
        wrong=tuple(sorted(name for name, count in wrong.items() if count >= SIBLINGS * wrongs)),
        right=tuple(sorted(right)),
        mixed=(wrongs > 0, rights > 0),
    )


def catch_all_use(groups: Iterable[Group]) -> Alarm | None:
    """`catch_all` over whole groups."""
    return catch_all([task_names(group) for group in groups])


def catch_all(tasks: Iterable[TaskNames]) -> Alarm | None:
    """One name in the wrong answers of most requests, and not in the right ones.

    Args:
        tasks: of any number of steps; the same request counts once, with what was said last.

    The reference is how often right answers use the name (one use is added, so that a name never
    seen in one still has a rate), tested one-sided against a binomial. Severity is the share.
    """
    newest = {task.prompt: task for task in tasks}.values()
    wrong = [task for task in newest if task.mixed[0]]
    right = [task for task in newest if task.mixed[1]]
    if len(wrong) < MIN_TASKS:
        return None
    counts = Counter(name for task in wrong for name in task.wrong)
    if not counts:
        return None
    name, count = counts.most_common(1)[0]
    share = count / len(wrong)
    usual = (sum(name in task.right for task in right) + 1) / (len(right) + 2)
    p = float(stats.binom.sf(count - 1, len(wrong), usual))
    if share < USE_SHARE or p >= USE_ALPHA:
        return None
    return Alarm(
        name="catch_all_use",
        evidence=f"{name!r} is used for {count} of {len(wrong)} different requests answered wrong, "
        f"and in {usual:.0%} of those answered right (p={p:.2g})",
        severity=share,
    )
