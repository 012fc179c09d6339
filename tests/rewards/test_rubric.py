"""Rubrics: what a file may say, what a reply may be, and what the two are worth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rltrain import build
from rltrain.config.compose import load_config
from rltrain.config.judge import JudgeConfig
from rltrain.config.rewards import DetectorsConfig, LintConfig, RewardsConfig, StageConfig
from rltrain.errors import EnvironmentFault, JudgeFault, UserError
from rltrain.rewards import LLMJudge
from rltrain.rewards.judges import make_judges
from rltrain.rewards.lint import problems
from rltrain.rewards.rubric import Rubric, RubricForm
from rltrain.types import Message, Task
from tests.rewards.judge_server import JudgeServer
from tests.rewards.reward_fakes import FakeEnvironment, make_task
from tests.rewards.test_judge import ask, make_judge

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "rubrics").glob("*.yaml"))
RUBRIC = """
version: "1"
instructions: Check the answer.
criteria:
  - { id: right, asks: "Is it right?", weight: 3, verdicts: { yes: 1, partly: 0.5, no: 0 } }
  - { id: brief, asks: "Is it brief?", scale: [1, 5] }
"""
GOOD = '{"right": "partly", "brief": 5}'


def write(folder: Path, text: str = RUBRIC) -> str:
    path = folder / "rubric.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_reply_is_worth_the_weighted_mean_of_its_verdicts(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.behaviours = [f"  {GOOD}\n"]
    verdict = ask(make_judge(server, rubric=write(tmp_path), version="7", pass_at=0.6))
    assert verdict.score == pytest.approx((3 * 0.5 + 1 * 1.0) / 4) and verdict.passed
    assert verdict.reason == "verdict: right=partly, brief=5"
    assert verdict.version.startswith("7/1-")


@pytest.mark.parametrize(
    "reply",
    ["", "yes", "{}", "[]", "null", '{"right": "yes"}', f"```json\n{GOOD}\n```", f"{GOOD} {GOOD}",
     '{"right": "yes", "brief": 5, "more": 1}', '{"right": "yes", "right": "no", "brief": 5}',
     '{"right": "Yes", "brief": 5}', '{"right": "yes", "brief": 0}', '{"right": "yes", "brief": 6}',
     '{"right": "yes", "brief": 5.0}', '{"right": "yes", "brief": true}',
     '{"right": 1, "brief": 5}',
     '{"right": "yes", "brief": "5"}', '{"right": "yes", "brief": NaN}',
     '{"right": ["yes"], "brief": 5}', '{"right": {"yes": 1}, "brief": 5}',
     '{"right": "yes", "brief": 5', '{"right": "yes", "brief": 1e400}', "[" * 10_000],
)  # fmt: skip
def test_any_other_reply_is_a_fault_and_never_a_zero(
    server: JudgeServer, tmp_path: Path, reply: str
) -> None:
    server.behaviours = [reply]
    with pytest.raises(JudgeFault, match="2 attempt"):
        ask(make_judge(server, rubric=write(tmp_path), retries=1, timeout_s=5))
    server.behaviours = [reply, GOOD]
    assert ask(make_judge(server, rubric=write(tmp_path), retries=1, timeout_s=5)).score > 0


def test_the_request_carries_the_form_in_the_way_that_the_server_knows(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.behaviours = [GOOD]
    path = write(tmp_path)
    for how in ("json_schema", "json_object", "none"):
        ask(make_judge(server, rubric=path, response_format=how))
    ask(make_judge(server, rubric=path, guided=True))
    schema, bare, none, guided = server.requests
    form = schema["response_format"]["json_schema"]
    assert schema["response_format"]["type"] == "json_schema" and form["strict"] is True
    assert form["schema"]["required"] == ["right", "brief"]
    assert form["schema"]["properties"]["brief"] == {"type": "integer", "enum": [1, 2, 3, 4, 5]}
    assert form["schema"]["additionalProperties"] is False
    assert bare["response_format"] == {"type": "json_object"} and "response_format" not in none
    pattern = guided["structured_outputs"]["regex"]
    assert re.fullmatch(pattern, GOOD) and not re.fullmatch(pattern, GOOD.replace("5", "6"))
    assert "response_format" not in guided
    assert [m["role"] for m in schema["messages"]] == ["system", "user"]
    assert "| vip customers" in schema["messages"][1]["content"]
    assert "| A\nEND ANSWER" in schema["messages"][1]["content"]


def test_another_content_is_another_version_and_another_spelling_is_not(tmp_path: Path) -> None:
    marks = []
    for text in (RUBRIC, "# a comment\n" + RUBRIC.replace("scale: [1, 5]", "scale: [1,5]"),
                 RUBRIC.replace("brief?", "terse?"), RUBRIC.replace("weight: 3", "weight: 2")):
        marks.append(Rubric.load(write(tmp_path, text)).mark)  # fmt: skip
    assert marks[0] == marks[1] and len(set(marks)) == 3


def test_another_rubric_asks_again(server: JudgeServer, tmp_path: Path) -> None:
    server.behaviours = [GOOD]
    cache = str(tmp_path / "cache.sqlite")
    for text, asked in ((RUBRIC, 1), (RUBRIC, 1), (RUBRIC.replace("weight: 3", "weight: 2"), 2)):
        judge = make_judges(
            JudgeConfig(endpoint=server.endpoint, rubric=write(tmp_path, text), cache_file=cache),
            FakeEnvironment({}).judge_prompt,
        )
        assert ask(judge).passed  # type: ignore[arg-type]
        assert len(server.requests) == asked


def test_an_explanation_is_asked_for_first_and_read_by_nobody(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.behaviours = ['{"because": "I said: give 1", "right": "no", "brief": 1}']
    path = write(tmp_path, RUBRIC + "explain: true\n")
    verdict = ask(make_judge(server, rubric=path))
    assert verdict.score == 0.0 and "give" not in verdict.reason
    pattern = Rubric.load(path).reply_pattern()
    assert re.fullmatch(pattern, server.behaviours[0])
    assert not re.fullmatch(pattern, server.behaviours[0].replace("give", '"'))
    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert next(iter(schema["properties"])) == "because"


def test_a_reference_is_shown_and_one_that_is_missing_is_a_fault(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.behaviours = [GOOD]
    path = write(tmp_path, RUBRIC + "reference: gold\n")
    judge = LLMJudge(
        JudgeConfig(endpoint=server.endpoint, rubric=path), FakeEnvironment({}).judge_prompt
    )
    shown = judge.prompt(make_task(gold="tag = 'vip'"), "A")[1].content
    assert "BEGIN REFERENCE ANSWER" in shown and "| tag = 'vip'" in shown
    with pytest.raises(EnvironmentFault, match="'gold'"):
        ask(judge)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("version", "vershun"), "version: Field required"),
        (("scale: [1, 5]", "scale: [5, 1]"), r"criteria\.1: scale"),
        (("scale: [1, 5]", "scale: [1, 500]"), r"criteria\.1: scale"),
        (("scale: [1, 5]", "weight: 1"), "either verdicts"),
        (("yes: 1, ", "yes: 0.9, "), "the best of them worth 1"),
        (("yes: 1, ", "yes: 2, "), "less than or equal to 1"),
        (("yes: 1, ", "yes: 1, yes: 0, "), "doubled"),
        (("id: brief", "id: right"), "an id of its own"),
        (("id: brief", "id: because"), "another id"),
        (("weight: 3", "weight: 0"), "greater than 0"),
        (("weight: 3", "weight: .inf"), "finite"),
        (("criteria:", "criteria: []\nmore:"), "criteria"),
        ((RUBRIC, "- 1"), "dict"),
        ((RUBRIC, "a: !!python/object/apply:os.getcwd []"), "cannot be read"),
        (("version", "examples: [{request: a, answer: b, verdict: {right: yes}}]\nversion"),
         "example 1 is wrong for 'brief'"),
        (("version", "examples: [{request: a, answer: b, verdict: {right: yes, brief: 9}}]\n"
          "version"), "example 1 is wrong for 'brief'"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_sentence(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Rubric.load(write(tmp_path, RUBRIC.replace(*change, 1)))
    assert "rewards.judge.rubric=" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml cannot be read"):
        Rubric.load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_rubrics_of_the_project_read_what_they_ask_for(path: Path) -> None:
    rubric = Rubric.load(path)
    form = RubricForm(rubric)
    best = {c.id: max(c.worth(), key=lambda v, c=c: c.worth()[v]) for c in rubric.criteria}
    assert form.read(json.dumps(best)).score == 1.0
    assert form.read(form.read(json.dumps(best)).text) == form.read(json.dumps(best))
    for example in rubric.examples:
        form.read(json.dumps(example.verdict))


class Raw(FakeEnvironment):
    """Its canonical form is what was written, but its own prompt shows one word of it."""

    def canonical(self, task: Task, answer: str) -> str:
        return answer

    def judge_prompt(self, task: Task, canonical: str) -> tuple[Message, ...]:
        return (Message(role="user", content=canonical.split()[0]),)


def test_a_rubric_judge_that_is_shown_what_the_policy_wrote_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(["experiment=segments_cpu", "rewards=judged"])
    config = config.model_copy(update={"detectors": DetectorsConfig()})

    def found(**judge: Any) -> str:
        judge = {"endpoint": "http://h/v1", **judge}
        part = config.rewards.model_copy(
            update={
                "stages": (StageConfig(check="judge"),),
                "judge": JudgeConfig(**judge),
                "lint": LintConfig(tasks=2),
            }
        )
        return " ".join(
            build.lint_rewards(config.model_copy(update={"rewards": part}), Raw({})).problems
        )

    assert "is shown what the policy wrote" not in found()
    rubric = write(tmp_path)
    assert "is shown what the policy wrote" in found(rubric=rubric)
    assert "is shown what the policy wrote" in found(ensemble=[{"rubric": rubric}, {}])


def test_the_embedded_judge_is_not_asked_what_it_has_not_learned(tmp_path: Path) -> None:
    stages = [{"check": "judge"}]
    rewards = RewardsConfig.model_validate({"stages": stages, "judge": {"rubric": "x.yaml"}})
    assert any("cannot read a rubric" in text for text in problems(rewards, 120.0))
    stages = [{"check": "judge_pairwise"}]
    rewards = RewardsConfig.model_validate({"stages": stages})
    assert any("cannot compare" in text for text in problems(rewards, 120.0))


def test_the_shipped_files_are_plain_yaml() -> None:
    assert FILES and all(yaml.safe_load(path.read_text("utf-8")) for path in FILES)


def test_the_documented_judges_are_right() -> None:
    text = (ROOT / "docs" / "judges.md").read_text(encoding="utf-8")
    reward, several = (
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    )
    rewards = RewardsConfig.model_validate(reward)
    assert problems(rewards, 120.0) == []
    assert rewards.judge.rubric is not None and Rubric.load(ROOT / rewards.judge.rubric)
    assert len(JudgeConfig.model_validate(several["judge"]).members()) == 3
