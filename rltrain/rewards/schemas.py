"""Gates for structured outputs and tool calls: a JSON Schema or a pydantic model.

    answer -> `structured.body` -> `structured.parse` -> schema -> passed (1) or failed (0), and why

A schema that is broken is a `UserError` before the run; a validator of the user's that raises
anything but ValueError or AssertionError is a system fault. Neither is ever the policy's score.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, UnknownType, ValidationError
from jsonschema.validators import validator_for
from pydantic import BaseModel
from pydantic import ValidationError as ModelError
from referencing import Registry, Resource
from referencing.exceptions import CannotDetermineSpecification, Unresolvable
from referencing.jsonschema import DRAFT202012

from rltrain.algo.named import find
from rltrain.errors import UserError
from rltrain.rewards.structured import SHOWN, Finding, Malformed, body, parse, reason, type_name
from rltrain.types import Task, Verdict

TAGS = ("json",)


class StructuredCheck:
    """What both have in common: from the answer to findings to a verdict."""

    code = "structured"
    version = "1"
    extract = "text"

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Score 1 and passed if there is nothing to find, else 0. Raises what a broken model does;
        the gate makes it a fault."""
        try:
            text = body(answer, self.extract, TAGS)
            findings = self.findings(text, parse(text))
        except Malformed as error:
            findings = [error.finding]
        passed = not findings
        return Verdict(
            gate=self.code,
            passed=passed,
            score=float(passed),
            reason="" if passed else reason(self.code, findings),
            version=self.version,
        )

    def findings(self, text: str, value: Any) -> Sequence[Finding]:
        raise NotImplementedError


class JsonSchemaCheck(StructuredCheck):
    """The answer is JSON that a JSON Schema allows; Draft 2020-12 unless `$schema` says otherwise.

    `format` is checked as far as jsonschema can without further packages. References lead inside
    the schema only: nothing is fetched.
    """

    code = "json_schema"

    def __init__(self, schema: Mapping[str, Any] | str, extract: str = "text") -> None:
        """`schema`: itself, or the file that holds it. Raises `UserError` if it is broken."""
        self.extract = extract
        given = _load(schema) if isinstance(schema, str) else dict(schema)
        kind = validator_for(given, default=Draft202012Validator)
        try:
            kind.check_schema(given)
            _check_references(given)
            self._validator = kind(
                given, registry=Registry(), format_checker=kind.FORMAT_CHECKER
            )
            next(self._validator.iter_errors(None), None)
        except (SchemaError, UnknownType, Unresolvable, CannotDetermineSpecification) as error:
            first = (str(getattr(error, "message", "")) or str(error)).splitlines()[0]
            raise UserError(f"rewards.stages: the schema is no JSON Schema: {first}") from error
        except RecursionError as error:
            raise UserError("rewards.stages: the schema refers to itself without end") from error
        self.version = _digest(given)

    def findings(self, text: str, value: Any) -> Sequence[Finding]:
        errors = itertools.islice(self._validator.iter_errors(value), SHOWN)
        return [_finding(error) for error in errors]


class PydanticCheck(StructuredCheck):
    """The answer is JSON that a pydantic model accepts, as strictly as the model says."""

    code = "pydantic"

    def __init__(self, model: str | type[BaseModel], extract: str = "text") -> None:
        """`model`: the class, or `package.module:Model`. Raises `UserError` if it is no model."""
        self.extract = extract
        found = find("rewards.stages: model", model, {}) if isinstance(model, str) else model
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            raise UserError(f"rewards.stages: {model} is no pydantic model; name a class of one")
        self._model = found
        try:
            self.version = _digest(found.model_json_schema())
        except Exception:  # a model need not have a JSON Schema to be of use
            self.version = "1"

    def findings(self, text: str, value: Any) -> Sequence[Finding]:
        try:
            self._model.model_validate_json(text)
        except ModelError as error:
            return [
                Finding(
                    path=_pointer(each["loc"]),
                    rule=each["type"],
                    expected=_brief(each.get("ctx", each["type"])),
                    got=type_name(each["input"]),
                )
                for each in error.errors(include_url=False)[:SHOWN]
            ]
        return []


def _finding(error: ValidationError) -> Finding:
    return Finding(
        path=_pointer(error.absolute_path),
        rule=str(error.validator),
        expected=_brief(error.validator_value),
        got=type_name(error.instance),
    )


def _pointer(parts: Any) -> str:
    """RFC 6901."""
    return "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in parts)


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)[:200]


def _load(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"rewards.stages: schema {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"rewards.stages: schema {path} must hold a JSON object")
    return found


def _check_references(schema: Mapping[str, Any]) -> None:
    """Raises `Unresolvable` for a reference that leads nowhere, `UserError` for one that leads out.

    What stands beside `$id`s of its own is left to the validator."""
    resource: Resource[Any] = DRAFT202012.create_resource(schema)
    resolver = Registry().with_resource("", resource).resolver()
    for target in _references(schema):
        if not target.startswith("#"):
            raise UserError(
                f"rewards.stages: the schema refers to {target!r}; put it into the schema's $defs, "
                "since nothing is fetched"
            )
        if target == "#" or target.startswith("#/"):
            resolver.lookup(target)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _digest(schema: Mapping[str, Any]) -> str:
    text = json.dumps(schema, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
