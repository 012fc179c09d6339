"""Rubrics: a file that says what a judge looks at, and what each finding is worth.

    FILE -> Rubric;   (task, canonical) -> messages (`rendering`);   reply -> score in [0, 1]

A rubric's reply is one JSON object with one verdict per criterion, read strictly: no doubled key,
none too many, none missing, nothing around it. What it is worth is computed here, never by the
judge. The digest of the file's content is in the version of every verdict.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from rltrain.config.base import Section
from rltrain.errors import EnvironmentFault, UserError
from rltrain.rewards import rendering
from rltrain.rewards.chat import Unusable
from rltrain.rewards.judge_forms import Reading
from rltrain.rewards.rendering import Block, render, shield
from rltrain.rewards.structured import Malformed, parse
from rltrain.types import Message, Task

Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_ -]*$", max_length=40)]
Prompt = Callable[[Task, str], Sequence[Message]]

BECAUSE = "because"
MOST_SAID = 600
"""Characters of an explanation."""
WIDEST = 20
"""Steps of a scale."""
NAME = "verdict"


class Criterion(Section):
    """One thing to look at: `verdicts`, words with scores, or `scale`, two whole numbers."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)
    asks: str = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    verdicts: dict[Word, Unit] | None = None
    scale: tuple[int, int] | None = None
    """Worst and best; what lies between is worth its share."""

    @model_validator(mode="after")
    def _one_kind(self) -> Criterion:
        if (self.verdicts is None) == (self.scale is None):
            raise ValueError("give either verdicts (words with scores) or scale ([worst, best])")
        if self.scale is not None and not 1 <= self.scale[1] - self.scale[0] <= WIDEST:
            raise ValueError(f"scale must be [worst, best], at most {WIDEST} steps apart")
        if self.verdicts is not None and (len(self.verdicts) < 2 or max(self.scores()) != 1.0):
            raise ValueError("verdicts need at least two words, the best of them worth 1")
        if self.id == BECAUSE:
            raise ValueError(f"{BECAUSE!r} is the name of the explanation; choose another id")
        return self

    def scores(self) -> list[float]:
        return list(self.worth().values())

    def worth(self) -> Mapping[str | int, float]:
        """Every possible verdict with its score."""
        if self.verdicts is not None:
            return {word: score for word, score in self.verdicts.items()}  # noqa: C416
        assert self.scale is not None
        worst, best = self.scale
        return {n: (n - worst) / (best - worst) for n in range(worst, best + 1)}


class Example(Section):
    """One answer with the verdicts that it should get."""

    request: str
    answer: str
    verdict: dict[str, str | int]


class Rubric(Section):
    """The content of a rubric's file."""

    version: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    instructions: str = Field(min_length=1)
    """Who the judge is and what the answers are for."""
    criteria: tuple[Criterion, ...] = Field(min_length=1)
    reference: str | None = None
    """Key of the task's data with an answer known to be right, to be shown to the judge."""
    explain: bool = False
    """Let the judge write a sentence before its verdicts. It is read by nobody."""
    examples: tuple[Example, ...] = ()

    @model_validator(mode="after")
    def _examples_fit(self) -> Rubric:
        ids = [criterion.id for criterion in self.criteria]
        if len(set(ids)) < len(ids):
            raise ValueError("every criterion needs an id of its own")
        for number, example in enumerate(self.examples, start=1):
            wrong = example.verdict.keys() ^ set(ids) or [
                c.id for c in self.criteria if not _among(example.verdict[c.id], c.worth())
            ]
            if wrong:
                name = sorted(wrong)[0]
                raise ValueError(f"the verdict of example {number} is wrong for {name!r}")
        return self

    @staticmethod
    def load(path: str | Path) -> Rubric:
        """Raises `UserError` for a file that cannot be read or holds no rubric."""
        try:
            tree = _read(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            first = " ".join(str(error).split())[:200]
            raise UserError(f"rewards.judge.rubric={path} cannot be read: {first}") from error
        try:
            return Rubric.model_validate(tree)
        except ValidationError as error:
            first_error = error.errors()[0]
            key = ".".join(str(part) for part in first_error["loc"])
            said = first_error["msg"].removeprefix("Value error, ")
            where = f"{key}: " if key else ""
            raise UserError(f"rewards.judge.rubric={path}: {where}{said}") from error

    @property
    def mark(self) -> str:
        """Version and digest of the content, and of how it is shown: `1-0f3a…`."""
        text = json.dumps([rendering.VERSION, self.model_dump(mode="json")], sort_keys=True)
        return f"{self.version}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def reply_schema(self) -> dict[str, Any]:
        """JSON Schema of a reply."""
        properties: dict[str, Any] = {}
        if self.explain:
            properties[BECAUSE] = {"type": "string", "maxLength": MOST_SAID}
        for criterion in self.criteria:
            kind = "string" if criterion.verdicts is not None else "integer"
            properties[criterion.id] = {"type": kind, "enum": list(criterion.worth())}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def reply_pattern(self) -> str:
        """The same as a regular expression, for guided decoding: between the parts of a schema's
        object vLLM 0.32 lets a model write blanks until its tokens are spent."""
        parts = [_pattern(criterion) for criterion in self.criteria]
        if self.explain:
            parts.insert(0, f'"{BECAUSE}": "[^"\\\\\\x00-\\x1f]{{1,{MOST_SAID}}}"')
        return r"\{" + ", ".join(parts) + r"\}"


def _pattern(criterion: Criterion) -> str:
    possible = "|".join(json.dumps(value) for value in criterion.worth())
    return f'"{criterion.id}": ({possible})'


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML 1.2's booleans (`yes` is a word, as a verdict should be), and no doubled keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[0]!r} is doubled")
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _read(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, words) for tag, words in resolvers if tag != _BOOL or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class RubricForm:
    """The reply that a rubric asks for."""

    def __init__(
        self,
        rubric: Rubric,
        ask_by: Literal["vllm", "json_schema", "json_object", "none"] = "json_schema",
    ) -> None:
        """ask_by: how a server that is not asked for guided decoding is told the form."""
        self._rubric = rubric
        self._ask_by = ask_by
        self._schema = rubric.reply_schema()
        longest = {c.id: max(map(str, c.worth()), key=len) for c in rubric.criteria}
        self._max_tokens = 2 * len(json.dumps(longest)) + (MOST_SAID + 20) * rubric.explain

    def request(self, *, guided: bool) -> Mapping[str, object]:
        body: dict[str, object] = {"max_tokens": self._max_tokens}
        if guided:
            body["structured_outputs"] = {"regex": self._rubric.reply_pattern()}
        elif self._ask_by == "json_schema":
            named = {"name": NAME, "strict": True, "schema": self._schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif self._ask_by == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def read(self, reply: str) -> Reading:
        """Raises `Unusable` for anything but one object with a possible verdict per criterion."""
        try:
            given = parse(reply)
        except Malformed as error:
            raise Unusable(f"its reply is not strict JSON ({error.finding.rule})") from None
        if not isinstance(given, dict):
            raise Unusable("its reply is not a JSON object")
        if self._rubric.explain and not isinstance(given.pop(BECAUSE, ""), str):
            raise Unusable(f"its {BECAUSE!r} is not text")
        odd = given.keys() ^ {criterion.id for criterion in self._rubric.criteria}
        if odd:
            raise Unusable(f"it left out, or added, {sorted(odd)[0][:40]!r}")
        for criterion in self._rubric.criteria:
            if not _among(given[criterion.id], criterion.worth()):
                raise Unusable(f"its verdict for {criterion.id!r} is none of the possible ones")
        criteria = self._rubric.criteria
        weighted = [c.weight * c.worth()[given[c.id]] for c in criteria]
        score = fsum(weighted) / fsum(c.weight for c in criteria)
        kept = {c.id: given[c.id] for c in criteria}
        said = ", ".join(f"{name}={value}" for name, value in kept.items())
        return Reading(text=json.dumps(kept), score=min(1.0, score), said=f"verdict: {said}")

    def describe(self) -> str:
        return f"Answer with one JSON object: {json.dumps(_first(self._rubric))}"


def prompt_of(rubric: Rubric, most_chars: int) -> Prompt:
    """What a judge by this rubric is asked about a task and a canonical answer."""
    instructions = _instructions(rubric)

    def prompt(task: Task, canonical: str) -> tuple[Message, ...]:
        blocks = [*request_blocks(task)]
        if rubric.reference is not None:
            blocks.append(Block(title="REFERENCE ANSWER", text=known(task, rubric.reference)))
        blocks.append(Block(title="ANSWER", text=canonical))
        return render(instructions, blocks, most_chars=most_chars)

    return prompt


def request_blocks(task: Task) -> list[Block]:
    """What the task asks, one block per message of its prompt."""
    if len(task.prompt) == 1:
        return [Block(title="REQUEST", text=task.prompt[0].content)]
    return [
        Block(title=f"REQUEST PART {number}", text=f"{message.role}: {message.content}")
        for number, message in enumerate(task.prompt, start=1)
    ]


def known(task: Task, key: str) -> str:
    """An answer that the task's data holds. Raises `EnvironmentFault` if it holds none."""
    text = task.data.get(key)
    if not isinstance(text, str):
        raise EnvironmentFault(
            f"Task {task.id!r} has no text under {key!r} in its data, to be shown to the judge."
        )
    return text


def _instructions(rubric: Rubric) -> str:
    lines = [rubric.instructions.strip(), "", "Judge the answer by each of these:"]
    for criterion in rubric.criteria:
        words = " | ".join(json.dumps(value) for value in criterion.worth())
        lines.append(f"- {criterion.id}: {criterion.asks.strip()} ({words})")
    shape = _first(rubric)
    lines += ["", f"Reply with one JSON object of this form and nothing else: {json.dumps(shape)}"]
    for number, example in enumerate(rubric.examples, start=1):
        lines += ["", f"Example {number}. Request: {shield(example.request).strip()}"]
        lines += [f"Answer: {shield(example.answer).strip()}"]
        lines += [f"Verdict: {json.dumps(example.verdict)}"]
    return "\n".join(lines)


def _first(rubric: Rubric) -> dict[str, str | int]:
    """A reply of the right form."""
    reply: dict[str, str | int] = {BECAUSE: "one sentence"} if rubric.explain else {}
    return reply | {c.id: next(iter(c.worth())) for c in rubric.criteria}


def _among(value: object, possible: Mapping[str | int, float]) -> bool:
    """Equal in type as well: neither 1.0 nor true is 1."""
    return type(value) in (str, int) and value in possible
