"""Damaged and hostile data, through the commands themselves: one sentence or a safe result."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rltrain import cli
from rltrain.config.algo import LoraConfig
from rltrain.config.compose import load_config
from rltrain.config.rewards import StageConfig
from rltrain.errors import EnvironmentFault, UserError
from rltrain.launch.evaluation import held_out
from rltrain.learning import probe_ids
from rltrain.rewards import GatedReward
from rltrain.rollout.ledger import Ledger
from rltrain.rundir import create_run
from rltrain.track import read_rollouts, write_rollouts
from rltrain.train.model import add_lora
from rltrain.types import Episode, Group, Task, Turn, Verdict
from rltrain_envs.segments import build
from rltrain_envs.segments.env import Segments
from tests.makers import make_task, tiny_policy
from tests.report.ledgers import write_checkpoint, write_sound_run
from tests.report.synthetic import write_run
from tests.rollout.fake_worker import running

EXPERIMENT = ("experiment=segments_cpu", "max_steps=2", "rewards=executed")
Say = Callable[..., str]
_ENV = build()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command in this process; its one sentence on standard error, checked for its code."""

    def run(*args: str, code: int = 2) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(args))
        lines = capsys.readouterr().err.splitlines()
        assert ended.value.code == code, lines
        said = [line for line in lines if line.startswith("error: ")]
        assert len(said) == 1, lines
        return said[0]

    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory as `train` makes it, with nothing trained yet."""
    return create_run(load_config([*EXPERIMENT, "name=a", f"runs_dir={tmp_path}"])).path


@pytest.mark.parametrize(
    "content", [b"{a: [1", b"\xff\xfe\x00", b"- just\n- a list", b"", b"name: x\nnonsense: 1\n",
                b"!!python/object/apply:os.system ['touch /tmp/rltrain-yaml']"],
)  # fmt: skip
def test_a_damaged_config_is_named(run: Path, say: Say, content: bytes) -> None:
    (run / "config.yaml").write_bytes(content)
    for command in ("report", "export", "pairs"):
        extra = ["--out", str(run / "x.jsonl")] if command == "pairs" else []
        assert "config.yaml is damaged" in say(command, str(run), *extra)
    assert not Path("/tmp/rltrain-yaml").exists()


def test_a_checkpoint_with_a_flipped_byte_is_not_exported(run: Path, say: Say) -> None:
    checkpoint = write_checkpoint(run / "checkpoints" / "step-00002", 2)
    (checkpoint / "policy" / "model.safetensors").write_bytes(b"weightz")
    assert "model.safetensors is damaged (checksum differs)" in say("export", str(run))
    assert not (run / "model").exists()


def test_a_run_without_a_checkpoint_says_so(run: Path, say: Say) -> None:
    assert "has no complete checkpoint to export" in say("export", str(run))


@pytest.mark.parametrize("how", ["other shapes", "no base", "cut weights"])
def test_an_adapter_that_does_not_fit_its_base_is_not_merged(
    tmp_path: Path, how: str
) -> None:
    from rltrain.launch.export import merge

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    model = tiny_policy()
    model.save_pretrained(base)
    model.name_or_path = str(base)
    add_lora(model, LoraConfig(rank=2)).save_pretrained(adapter)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(base)
    if how == "other shapes":
        settings["r"] = 4
    elif how == "no base":
        settings["base_model_name_or_path"] = str(tmp_path / "nowhere")
    else:
        os.truncate(adapter / "adapter_model.safetensors", 100)
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"does not fit its base model") as said:
        merge(adapter, tmp_path / "out")
    assert "\n" not in str(said.value) and not (tmp_path / "out").exists()


def test_damaged_rollouts_are_named_by_pairs_and_by_the_report(
    run: Path, say: Say, tmp_path: Path
) -> None:
    (run / "rollouts" / "step-00001.parquet").write_bytes(b"PAR1 no PAR1")
    out = tmp_path / "pairs.jsonl"
    assert "step-00001.parquet cannot be read" in say("pairs", str(run), "--out", str(out))
    finished = write_run(tmp_path / "finished", steps=3)
    os.truncate(finished / "rollouts" / "step-00002.parquet", 500)
    (finished / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    cli_run = cli.run("report", [str(finished)])
    assert cli_run == 0
    assert "step-00002.parquet" in (finished / "report.html").read_text()


@pytest.mark.parametrize("damage", ["cut", "not SQLite", "other version"])
def test_a_damaged_ledger_stops_a_run_and_is_a_problem_of_an_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    made = write_sound_run(tmp_path / "run")
    ledger = made / "ledger.sqlite"
    if damage == "cut":
        os.truncate(ledger, 5000)
    elif damage == "not SQLite":
        ledger.write_bytes(b"hello, this is no database" * 200)
    else:
        import sqlite3

        db = sqlite3.connect(ledger)
        db.execute("PRAGMA user_version = 7")
        db.close()
    with pytest.raises(UserError, match=r"ledger\.sqlite") as said:
        Ledger(ledger).totals()
    assert "\n" not in str(said.value)
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", str(made)])
    assert ended.value.code == 3
    assert "ledger.sqlite" in json.loads(capsys.readouterr().out)["problems"][0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe{}", "cannot read answers"),
        (b'{"id": 1', "line 1: expected a JSON object"),
        (b"[1, 2]", "line 1: expected a JSON object"),
        (b"", "holds no answers"),
        (b'{"id": "nobody", "answer": "x"}', "no task has the id"),
    ],
)
def test_answers_that_cannot_be_read_are_named(
    tmp_path: Path, say: Say, content: bytes, said: str
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    assert said in say("score", str(path), "--no-judge", "--search", "5", *EXPERIMENT)


def test_an_answer_that_is_no_unicode_is_scored_stored_and_printed(tmp_path: Path) -> None:
    env, task = segments(), next(segments().tasks("test", 0))
    answer = "customer_tags CONTAINS '\ud800'\udfff"
    member = asyncio.run(reward(env).judge_episode(episode(task, answer)))
    assert member.reward < 0.5
    path = tmp_path / "step-00001.parquet"
    write_rollouts(path, [Group(lease=0, task=task, members=(member,))], step=1, version=0)
    assert read_rollouts(path)[0]["answer"] == answer.encode("utf-8", "replace").decode()
    rows = tmp_path / "answers.jsonl"
    rows.write_text(json.dumps({"id": task.id, "answer": answer}))
    command = [sys.executable, "-m", "rltrain", "score", str(rows), "--no-judge", *EXPERIMENT]
    done = subprocess.run(command, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.decode("utf-8"))["reward"] == member.reward


@pytest.mark.parametrize(
    "answer",
    ["(" * 60_000, "'" * 60_001, "a" * 500_000, "NOT " * 40_000, "\x00" * 100_000,
     "(" * 20_000 + "amount_spent > 1" + ")" * 20_000, "amount_spent > " + "9" * 100_000,
     "amount_spent > 1 AND " * 20_000 + "amount_spent > 1", "\n" * 100_000],
    ids=["brackets", "quotes", "letters", "words", "NULs", "nested", "digits", "clauses", "lines"],
)  # fmt: skip
def test_a_huge_answer_is_wrong_and_nothing_else(answer: str) -> None:
    env = segments()
    started = time.process_time()
    member = asyncio.run(reward(env).judge_episode(episode(next(env.tasks("test", 0)), answer)))
    assert member.reward == 0.0 and member.judged.truth == 0.0
    assert time.process_time() - started < 60  # not a matter of minutes: no step hangs on it


class BadCheck:
    """A user's reward function that is not quite right."""

    version = "1"

    def __init__(self, value: Any) -> None:
        self.value = value

    async def __call__(self, task: Task, answer: str) -> Verdict:
        if isinstance(self.value, Exception):
            raise self.value
        return Verdict(gate="mine", passed=True, score=self.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 2.0, "1", None, ZeroDivisionError()])
def test_a_reward_that_is_no_number_is_a_fault_and_never_a_reward(value: Any) -> None:
    class Mine(Segments):
        def checks(self) -> dict[str, Any]:
            return {"mine": BadCheck(value)}

    env = copy.copy(segments())
    env.__class__ = Mine
    rewards = GatedReward([StageConfig(check="mine")], env)
    with pytest.raises(EnvironmentFault):
        asyncio.run(rewards.judge_episode(episode(next(env.tasks("test", 0)), "x")))


class Nothing:
    """An environment without tasks."""

    name = "nothing"

    def tasks(self, split: str, seed: int) -> Iterator[Task]:
        return iter(())


def test_an_environment_without_tasks_is_named() -> None:
    with pytest.raises(UserError, match="holds no task to evaluate on"):
        held_out(load_config(EXPERIMENT), Nothing())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the train split of environment nothing is empty"):
        probe_ids(Nothing(), None)  # type: ignore[arg-type]
    with running(tasks=iter(())) as (dispatcher, _), pytest.raises(UserError, match="endless"):
        dispatcher.take(2)
    few = (make_task(n) for n in range(1))
    with running(tasks=few) as (dispatcher, _), pytest.raises(UserError, match="ended after 1"):
        dispatcher.take(2)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_read_only_folder_is_one_sentence(tmp_path: Path, say: Say) -> None:
    if subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=False).returncode:
        pytest.skip("this machine allows no mounts")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path], check=True)
        with pytest.raises(UserError, match=r"cannot write the run directory .*set runs_dir="):
            create_run(load_config([*EXPERIMENT, "name=a", f"runs_dir={tmp_path}"]))
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_file_in_the_place_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="cannot write the run directory"):
        create_run(load_config([*EXPERIMENT, "name=a", f"runs_dir={tmp_path / 'runs'}"]))


def segments() -> Any:
    return _ENV


def reward(env: Any) -> GatedReward:
    return GatedReward(load_config(EXPERIMENT).rewards.stages, env, screen=lambda judged: ())


def episode(task: Task, answer: str) -> Episode:
    turn = Turn(prompt_ids=(1,), completion_ids=(2,), logprobs=(-1.0,), version=0,
                stop_reason="stop", text=answer)  # fmt: skip
    return Episode(task=task, sample=0, turns=(turn,), answer=answer, ended="answered")
