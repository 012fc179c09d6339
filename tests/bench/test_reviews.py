"""Flags of a stored run, decisions on them, and what detectors learn from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rltrain.bench.detectors_cases import read_cases
from rltrain.bench.harvest import harvest
from rltrain.bench.reviews import flag_rows, read_reviews, review
from rltrain.commands import detect_bench, flags
from rltrain.config.compose import load_config
from rltrain.errors import UserError
from rltrain.track.rollouts import rollouts_path, write_rollouts
from rltrain.types import Episode, Flag, Group, Judged, Screened, Task, Turn
from rltrain_envs.segments import build


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with two steps of real tasks: gold, tag, refusal and nonsense answers."""
    run = tmp_path_factory.mktemp("runs") / "stored"
    (run / "rollouts").mkdir(parents=True)
    config = load_config(["experiment=segments_cpu", "name=stored"])
    (run / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    env = build(**config.environment.args)
    stream = env.tasks("train", config.seed)
    lease = 0
    for step in (1, 2):
        groups = []
        for _ in range(4):
            task = next(stream)
            groups.append(_group(task, lease, env.detectors(), env.truth))
            lease += 1
        write_rollouts(rollouts_path(run, step), groups, step=step, version=step - 1)
    return run


def _group(task: Task, lease: int, detectors, truth) -> Group:  # type: ignore[no-untyped-def]
    members = []
    answers = (str(task.data["gold"]), "customer_tags CONTAINS 'made-up'", "No.", "fff = ")
    for sample, answer in enumerate(answers):
        turn = Turn(prompt_ids=(1,), completion_ids=(2,), logprobs=(-0.5,), version=0,
                    stop_reason="stop", text=answer)  # fmt: skip
        episode = Episode(task=task, sample=sample, turns=(turn,), answer=answer, ended="answered")
        judged = Judged(episode=episode, verdicts=(), reward=0.0, truth=truth(task, answer))
        found = [(name, detector(judged)) for name, detector in detectors.items()]
        flagged = tuple(Flag(detector=n, evidence=e, action="keep") for n, e in found if e)
        members.append(Screened(judged=judged, flags=flagged, reward=0.0))
    return Group(lease=lease, task=task, members=tuple(members))


def test_decisions_are_appended_counted_and_exported(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags.main([str(stored), "--list", "--detector", "tag_catch_all", "--limit", "2"])
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    one, other = (row["id"] for row in listed)
    assert "made-up" in listed[0]["evidence"] and listed[0]["decision"] is None
    flags.main([str(stored), "--confirm", one, "--confirm", other, "--note", "clear"])
    flags.main([str(stored), "--reject", other])
    assert [row["decision"] for row in read_reviews(stored)] == ["confirmed"] * 2 + ["rejected"]
    decided = {row.id: row.decision for row in flag_rows(stored) if row.decision}
    assert decided == {one: "confirmed", other: "rejected"}
    out = tmp_path / "labelled.jsonl"
    flags.main([str(stored), "--export", str(out)])
    cases = read_cases(out)
    assert sorted(sorted(case.kinds) for case in cases) == [[], ["tag_catch_all"]]
    assert all(case.labelled == {"tag_catch_all"} and case.data["gold"] for case in cases)
    capsys.readouterr()
    detect_bench.main([str(out), "--json"])
    facts = json.loads(capsys.readouterr().out)
    found = facts["detectors"]["segments.tag_catch_all"]["by_source"]["reviewed-stored"]
    assert (found["tp"], found["fp"], found["fn"], found["tn"]) == (1, 1, 0, 0)
    flags.main([str(stored)])
    assert "tag_catch_all" in capsys.readouterr().out


def test_an_unknown_flag_is_an_error_and_nothing_is_written(stored: Path) -> None:
    before = read_reviews(stored)
    known = next(flag_rows(stored)).id
    with pytest.raises(UserError, match=r"has no flag '9\.9\.9\.x'"):
        review(stored, [known, "9.9.9.x"], "confirmed")
    assert read_reviews(stored) == before
    with pytest.raises(UserError, match="both confirmed and rejected"):
        flags.main([str(stored), "--confirm", known, "--reject", known])


def test_a_damaged_review_is_named_with_its_line(stored: Path, tmp_path: Path) -> None:
    (tmp_path / "reviews.jsonl").write_text('{"id": "a", "decision": "confirmed"}\n{"id": 3}\n')
    with pytest.raises(UserError, match=r"reviews\.jsonl, line 2: not a decision"):
        read_reviews(tmp_path)
    with pytest.raises(UserError, match="has no rollouts"):
        list(flag_rows(tmp_path / "none"))


def test_a_harvest_is_labelled_by_execution(stored: Path) -> None:
    cases = harvest(stored, "harvested", per_kind=50)
    by_answer: dict[str, set[str]] = {}
    for case in cases:
        by_answer.setdefault(case.answer, set()).update(case.kinds)
    assert by_answer["No."] == {"opt_out"}
    assert by_answer["customer_tags CONTAINS 'made-up'"] == {"tag_catch_all"}
    assert all(not case.kinds for case in cases if case.correct)
    assert len({(case.request, case.answer) for case in cases}) == len(cases)
