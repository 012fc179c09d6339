"""Structured answers: read strictly, refused with reasons for programs, and never a fault."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from rltrain.config.rewards import StageConfig
from rltrain.errors import EnvironmentFault, UserError
from rltrain.rewards import GatedReward
from rltrain.rewards.schemas import JsonSchemaCheck, PydanticCheck, StructuredCheck
from rltrain.rewards.structured import MAX_CHARS, MAX_DEPTH
from rltrain.types import Verdict
from tests.rewards.reward_fakes import FakeEnvironment, make_episode, make_task

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "tool": {"enum": ["search", "read"]},
        "args": {
            "type": "object",
            "properties": {"n": {"type": "integer", "minimum": 1}, "on": {"format": "date"}},
            "required": ["n"],
            "additionalProperties": False,
        },
    },
    "required": ["tool", "args"],
}


class Args(BaseModel):
    n: int = Field(ge=1, strict=True)


class Call(BaseModel):
    """A tool call."""

    tool: Literal["search", "read"]
    args: Args

    @field_validator("tool")
    @classmethod
    def _trips(cls, value: str) -> str:
        if value == "read":
            raise RuntimeError("the validator is broken")
        return value


def ask(check: StructuredCheck, answer: str) -> Verdict:
    return asyncio.run(check(make_task(), answer))


def findings(verdict: Verdict) -> list[dict[str, str]]:
    code, _, rest = verdict.reason.partition(": ")
    assert code == verdict.gate and verdict.reason.isascii() and not verdict.passed
    found: list[dict[str, str]] = json.loads(rest)
    assert all(set(each) == {"path", "rule", "expected", "got"} for each in found)
    return found


GOOD = '{"tool": "search", "args": {"n": 3}}'


@pytest.mark.parametrize("check", [JsonSchemaCheck(SCHEMA), PydanticCheck(Call)])
def test_a_right_answer_scores_one_and_a_wrong_one_says_where_and_why(
    check: StructuredCheck,
) -> None:
    verdict = ask(check, f"\n {GOOD} \n")
    assert (verdict.passed, verdict.score, verdict.reason) == (True, 1.0, "")
    wrong = ask(check, '{"tool": "search", "args": {"n": "many secrets"}}')
    (found,) = findings(wrong)
    assert (found["path"], found["got"], wrong.score) == ("/args/n", "string", 0.0)
    assert "secrets" not in wrong.reason
    assert found["rule"] in ("type", "int_type")


def test_reasons_name_rule_and_expectation() -> None:
    check = JsonSchemaCheck(SCHEMA)
    assert findings(ask(check, '{"tool": "fly", "args": {"n": 0, "on": "yesterday"}}')) == [
        {"path": "/tool", "rule": "enum", "expected": '["search", "read"]', "got": "string"},
        {"path": "/args/n", "rule": "minimum", "expected": "1", "got": "integer"},
        {"path": "/args/on", "rule": "format", "expected": "date", "got": "string"},
    ]
    (found,) = findings(ask(PydanticCheck(Call), '{"tool": "search", "args": {"n": 0}}'))
    assert (found["rule"], found["expected"]) == ("greater_than_equal", '{"ge": 1}')


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ("", "json"), (GOOD + "x", "json"), ("```json\n" + GOOD + "\n```", "json"),
        ('{"a": 1, "a": 1}', "duplicate_key"), ('[{"b": {"a": 1, "a": 2}}]', "duplicate_key"),
        ("NaN", "number"), ("[-Infinity]", "number"), ("1e999", "number"), ("9" * 5000, "number"),
        (deep(MAX_DEPTH + 1), "depth"), (deep(30_000), "depth"), (" " * MAX_CHARS + "1", "size"),
        (r'"\ud800"', "unicode"), (r'{"\udfff": 1}', "unicode"), ('"\ud800"', "unicode"),
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_refused(answer: str, rule: str) -> None:
    for check in (JsonSchemaCheck({}), PydanticCheck(Call)):
        assert findings(ask(check, answer))[0]["rule"] == rule
    assert ask(JsonSchemaCheck({}), deep(MAX_DEPTH)).passed


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        (f"Here:\n```json\n{GOOD}\n```\ndone", True), (f"```\n{GOOD}\n```", True),
        (GOOD, False), (f"```json\n{GOOD}", False), (f"```yaml\n{GOOD}\n```", False),
        (f"```json\n{GOOD}\n```\n```json\n{GOOD}\n```", False), (f"```json {GOOD} ```", False),
    ],
)  # fmt: skip
def test_extract_block_takes_the_one_fenced_block(answer: str, passed: bool) -> None:
    verdict = ask(JsonSchemaCheck(SCHEMA, "block"), answer)
    assert verdict.passed is passed
    if not passed:
        assert findings(verdict)[0]["rule"] == "block"


Json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(st.one_of(st.text(), Json.map(json.dumps), st.text('{}[]":,0eE-.\\u d\ud800`\n')))
@settings(max_examples=300, deadline=None)
def test_no_answer_whatever_makes_a_fault(answer: str) -> None:
    kinds = {"multipleOf": 0.01, "uniqueItems": True, "format": "ipv4", "pattern": "^a+$"}
    for check in (JsonSchemaCheck(SCHEMA), JsonSchemaCheck(kinds), PydanticCheck(Args)):
        verdict = ask(check, answer)
        assert verdict.score == float(verdict.passed)
        verdict.reason.encode("utf-8")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "strnig"}, "no JSON Schema"), ({"$ref": "#/$defs/gone"}, "no JSON Schema"),
        ({"$ref": "https://example.com/x.json"}, "nothing is fetched"), ({"$ref": "#"}, "itself"),
        ({"pattern": "("}, "no JSON Schema"),
    ],
)  # fmt: skip
def test_a_broken_schema_is_refused_before_a_run(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        JsonSchemaCheck(schema)


def test_a_schema_may_be_a_file_and_its_digest_is_the_version(tmp_path: Path) -> None:
    path = tmp_path / "call.json"
    path.write_text(json.dumps(SCHEMA))
    stage = StageConfig(check="json_schema", schema=str(path), name="tool_call", on_fail=0.1)
    gates = GatedReward([stage], FakeEnvironment({}))
    result = asyncio.run(gates.judge_episode(make_episode("[]")))
    verdict = result.judged.verdicts[0]
    assert (result.reward, verdict.gate) == (0.1, "tool_call")
    assert verdict.version == JsonSchemaCheck(SCHEMA).version != JsonSchemaCheck({}).version
    for text, message in (("[]", "JSON object"), ("{", "cannot be read")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            JsonSchemaCheck(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        JsonSchemaCheck(str(tmp_path / "none.json"))


def test_a_model_that_is_none_is_refused_and_a_broken_validator_is_a_fault() -> None:
    with pytest.raises(UserError, match="no pydantic model"):
        PydanticCheck("json:loads")
    with pytest.raises(UserError, match="cannot be loaded"):
        PydanticCheck("json:Nothing")
    stage = StageConfig(check="pydantic", model=f"{__name__}:Call")
    gates = GatedReward([stage], FakeEnvironment({}))
    assert asyncio.run(gates.judge_episode(make_episode(GOOD))).reward == 1.0
    with pytest.raises(EnvironmentFault, match="'pydantic' is broken: it raised RuntimeError"):
        asyncio.run(gates.judge_episode(make_episode(GOOD.replace("search", "read"))))
