"""What asking costs, and what is remembered from run to run: real replies, a real file."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rltrain.config.judge import JudgeConfig
from rltrain.errors import JudgeFault, UserError
from rltrain.rewards.judge_cost import StepSpending, usage_of
from rltrain.rewards.judge_store import JudgeStore
from rltrain.rewards.judges import Judges, make_judges
from rltrain.types import Verdict
from tests.rewards.judge_server import JudgeServer
from tests.rewards.reward_fakes import FakeEnvironment, make_task

TASK = make_task()
USAGE = {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102}
PRICE = {"input": 2.0, "output": 10.0}


def judges(server: JudgeServer, **settings: Any) -> Judges:
    config = {"endpoint": server.endpoint, "retries": 0, "patience_s": 0, "backoff_s": 0.001,
              "timeout_s": 20, **settings}  # fmt: skip
    return make_judges(JudgeConfig.model_validate(config), FakeEnvironment({}).judge_prompt)


def ask(judge: Judges, *answers: str) -> tuple[list[Verdict], dict[str, float]]:
    async def scenario() -> list[Verdict]:
        try:
            return [await judge(TASK, answer) for answer in answers]
        finally:
            await judge.aclose()

    return asyncio.run(scenario()), judge.metrics()


def test_tokens_are_the_servers_own_count_and_money_is_by_the_price(server: JudgeServer) -> None:
    server.usage = USAGE
    _, metrics = ask(judges(server, price=PRICE), "A", "B", "A")
    assert metrics["judge/tokens_in"] == 200 and metrics["judge/tokens_out"] == 4
    assert metrics["judge/cost"] == pytest.approx((200 * 2 + 4 * 10) / 1e6)
    assert metrics["judge/usage_unknown"] == 0
    assert "judge/cost" not in ask(judges(server), "A")[1]


def test_a_reply_that_is_thrown_away_was_paid_for(server: JudgeServer) -> None:
    server.usage, server.behaviours = USAGE, ["nonsense", "yes"]
    _, metrics = ask(judges(server, retries=1), "A")
    assert metrics["judge/tokens_in"] == 200


def test_usage_that_nobody_told_is_unknown_and_not_zero(server: JudgeServer) -> None:
    _, metrics = ask(judges(server, price=PRICE), "A")
    assert metrics["judge/usage_unknown"] == 1
    assert not metrics.keys() & {"judge/tokens_in", "judge/tokens_out", "judge/cost"}
    server.behaviours = ["hang", "yes"]  # it may have been worked on
    server.usage = USAGE
    _, metrics = ask(judges(server, retries=3, timeout_s=1), "A")
    assert metrics["judge/usage_unknown"] >= 1 and metrics["judge/tokens_in"] == 100


@pytest.mark.parametrize(
    "block",
    [None, [], {}, {"prompt_tokens": 1}, {"prompt_tokens": -1, "completion_tokens": 2},
     {"prompt_tokens": "1", "completion_tokens": 2}, {"prompt_tokens": 1.5, "completion_tokens": 2},
     {"prompt_tokens": True, "completion_tokens": 2}],
)  # fmt: skip
def test_a_usage_block_that_makes_no_sense_is_none(block: object) -> None:
    assert usage_of({"usage": block}) is None


def test_a_step_shows_what_was_added_since_the_one_before() -> None:
    step = StepSpending()
    first = {"judge/tokens_in": 10.0, "judge/flips": 1.0, "judge/compared_pairs": 4.0}
    assert step({"w0": first, "w1": {"judge/calls": 3.0}}) == first | {
        "judge/position_flip_rate": 0.25
    }
    again = {"w0": {**first, "judge/tokens_in": 15.0}, "w1": {"judge/tokens_in": 7.0}}
    assert step(again)["judge/tokens_in"] == 12.0
    assert "judge/position_flip_rate" not in step(again)
    restarted = {"w0": {**first, "judge/tokens_in": 2.0}}
    assert step(restarted)["judge/tokens_in"] == 2.0
    assert StepSpending()({}) == {}


def test_verdicts_are_remembered_from_run_to_run(server: JudgeServer, tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "cache.sqlite")
    server.behaviours = ["no"]
    (first,), _ = ask(judges(server, cache_file=path), "A")
    (again, other), metrics = ask(judges(server, cache_file=path), "A", "B")
    assert not first.cached and again.cached and not other.cached
    assert again.score == 0.0 and len(server.requests) == 2 and metrics["judge/store_faults"] == 0
    for change in ({"version": "2"}, {"model": "m"}):
        (verdict,), _ = ask(judges(server, cache_file=path, **change), "A")
        assert not verdict.cached


def test_a_fault_is_not_remembered(server: JudgeServer, tmp_path: Path) -> None:
    path = str(tmp_path / "cache.sqlite")
    server.behaviours = ["nonsense", "yes"]
    with pytest.raises(JudgeFault):
        ask(judges(server, cache_file=path), "A")
    (verdict,), _ = ask(judges(server, cache_file=path), "A")
    assert verdict.score == 1.0 and not verdict.cached


def test_what_a_judge_cannot_have_said_is_asked_again(server: JudgeServer, tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    ask(judges(server, cache_file=str(path)), "A")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE answers SET text = 'maybe'")
    (verdict,), _ = ask(judges(server, cache_file=str(path)), "A")
    assert verdict.score == 1.0 and not verdict.cached


@pytest.mark.parametrize("kind", ["text", "other", "flipped", "cut", "folder"])
def test_a_file_that_cannot_be_used_is_one_sentence_and_stays_as_it_is(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "cache.sqlite"
    store = JudgeStore(path)
    for n in range(400):
        store.put(f"key {n} " + "x" * 100, "yes")
    store.close()
    content = path.read_bytes()
    if kind == "text":
        path.write_text("to be kept")
    elif kind == "other":
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE mine (a)")
    elif kind == "flipped":
        path.write_bytes(content[:4096] + b"\xff" * 4096 + content[8192:])
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
        path.mkdir()
    before = None if kind == "folder" else path.read_bytes()
    with pytest.raises(UserError, match=r"cache_file=.*cache\.sqlite cannot be used") as caught:
        JudgeStore(path)
    assert "\n" not in str(caught.value)
    assert before is None or path.read_bytes() == before


def test_a_file_that_breaks_later_costs_no_verdict(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    store = JudgeStore(tmp_path / "cache.sqlite", lambda kind, text: told.append((kind, text)))
    store.put("a", "yes")
    with sqlite3.connect(store.path) as db:
        db.execute("DROP TABLE answers")
    assert store.get("a") is None and store.get("a") is None
    store.put("b", "no")
    assert store.faults == 1 and [kind for kind, _ in told] == ["judge_cache"]


def test_a_process_killed_while_it_writes_loses_nothing_that_it_said(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    code = (
        "import itertools, sys\n"
        "from rltrain.rewards.judge_store import JudgeStore\n"
        "store = JudgeStore(sys.argv[1])\n"
        "for n in itertools.count():\n"
        "    store.put(str(n), 'yes')\n"
        "    print(n, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        store = None
        for line in writer.stdout:
            if int(line) == 5:  # another process opens it meanwhile
                store = JudgeStore(path)
                store.put("other", "no")
            if int(line) >= 50:
                break
        os.kill(writer.pid, signal.SIGKILL)
        said = [int(line), *(int(rest) for rest in writer.stdout.read().splitlines() if rest)]
    assert store is not None and store.get(str(said[-1])) == "yes"
    store.close()
    store = JudgeStore(path)
    assert store.get("other") == "no" and all(store.get(str(n)) == "yes" for n in range(said[-1]))
    store.close()
