"""The supervisor with real processes: what dies or hangs is started again, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rltrain.config.supervise import SuperviseConfig
from rltrain.errors import ChildDied, UserError
from rltrain.launch.supervise import Supervisor
from tests.launch.scripts import ALIVE, Crew

QUICK = SuperviseConfig(backoff_s=0.05, stall_s=1.0)


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_a_killed_worker_is_started_again_alone_and_the_cause_is_told(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    with Supervisor(QUICK, crew.tell) as supervisor:
        supervisor.start(crew.member("learner"), [crew.member("worker-0")])
        os.kill(crew.newest("worker-0"), signal.SIGKILL)
        until(lambda: len(crew.told) == 1)
        supervisor.check()
        assert crew.told[0][0] == "worker-0"
        assert crew.told[0][1] == "was killed by SIGKILL; restarted (1 of 5) after 0.1 s"
        assert [len(crew.pids[name]) for name in ("learner", "worker-0")] == [1, 2]
        assert len(crew.living()) == 2
    assert crew.living() == []


def test_a_dead_learner_takes_its_workers_along_and_all_start_again(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    twice = f"""
import pathlib, sys
mark = pathlib.Path(sys.argv[1] + ".second")
if mark.exists():
    sys.exit(0)
mark.touch()
{ALIVE}"""
    with Supervisor(QUICK, crew.tell) as supervisor:
        workers = [crew.member("worker-0"), crew.member("worker-1")]
        supervisor.start(crew.member("learner", twice), workers)
        until((tmp_path / "learner.second").exists)
        first = crew.living()
        assert len(first) == 3
        os.kill(crew.newest("learner"), signal.SIGTERM)
        until(lambda: len(crew.told) == 1)
        assert not set(first) & set(crew.living()), "workers of a dead learner live on"
        assert all(len(pids) == 2 for pids in crew.pids.values())
        assert crew.told == [
            ("learner", "was killed by SIGTERM; restarted (1 of 5) after 0.1 s")
        ]
        until(lambda: not supervisor._seats["learner"].running)
        for name in ("worker-0", "worker-1"):
            os.kill(crew.newest(name), signal.SIGKILL)  # once the learner is done, nobody minds
        supervisor.wait("learner")
        assert len(crew.told) == 1
    assert crew.living() == []


def test_a_stopped_process_is_noticed_killed_and_started_again(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    with Supervisor(QUICK, crew.tell) as supervisor:
        supervisor.start(crew.member("learner"), [crew.member("worker-0")])
        until((tmp_path / "worker-0").exists)
        time.sleep(0.5)  # it was seen to beat
        stopped = crew.newest("worker-0")
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: len(crew.told) == 1)
        assert "gave no sign of life for 1 s and was killed; restarted (1 of 5)" in crew.told[0][1]
        assert stopped not in crew.living() and len(crew.living()) == 2
    assert crew.living() == []


@pytest.mark.parametrize(
    ("code", "kind"), [(2, UserError), (3, ChildDied)], ids=["a user's error", "a broken sync"]
)
def test_an_error_that_no_restart_cures_stops_everything_and_is_named(
    tmp_path: Path, code: int, kind: type[Exception]
) -> None:
    crew = Crew(tmp_path)
    wrong = f"import sys; print('error: the disk is full', flush=True); sys.exit({code})"
    with Supervisor(QUICK, crew.tell) as supervisor:
        supervisor.start(crew.member("learner"), [crew.member("worker-0", wrong)])
        with pytest.raises(kind, match=rf"worker-0 ended with code {code}: the disk is full .*log"):
            supervisor.wait("learner")
        assert crew.told == [] and len(crew.pids["worker-0"]) == 1
    assert crew.living() == []


def test_a_spent_budget_stops_the_run_and_says_how_to_go_on(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    config = QUICK.model_copy(update={"max_restarts": 2})
    dies = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with Supervisor(config, crew.tell) as supervisor:
        supervisor.start(crew.member("learner"), [crew.member("worker-0", dies)])
        with pytest.raises(ChildDied, match=r"worker-0 was killed .*max_restarts=2.*resume=auto"):
            supervisor.wait("learner")
    assert len(crew.pids["worker-0"]) == 3 and crew.living() == []


def test_leaving_while_a_restart_is_due_starts_nothing_any_more(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    slow = QUICK.model_copy(update={"backoff_s": 0.5})
    with pytest.raises(KeyboardInterrupt), Supervisor(slow, crew.tell) as supervisor:
        supervisor.start(crew.member("learner"), [crew.member("worker-0")])
        os.kill(crew.newest("learner"), signal.SIGKILL)
        until(lambda: supervisor._seats["learner"].due is not None)
        raise KeyboardInterrupt
    time.sleep(0.7)
    assert crew.living() == [] and crew.told == []


def test_a_member_that_cannot_be_started_again_is_tried_again(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    member = crew.member("learner")
    start, failures = member.start, [OSError(12, "no memory"), UserError("port 7 is taken")]

    def reluctant() -> None:
        if crew.pids and failures:
            raise failures.pop()
        start()

    member.start = reluctant  # type: ignore[method-assign]
    with Supervisor(QUICK, crew.tell) as supervisor:
        supervisor.start(member, [])
        os.kill(crew.newest("learner"), signal.SIGKILL)
        until(lambda: len(crew.told) == 1)
        assert "no memory; restarted (3 of 5) after 0.2 s" in crew.told[0][1]
    assert crew.living() == []
