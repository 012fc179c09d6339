"""Every environment withstands agents that know nothing; planted defects are found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rltrain.bench.audit_env import BOUND, Paid
from rltrain.commands.audit_env import facts_of, main
from rltrain.config.compose import config_dir
from rltrain.errors import UserError
from rltrain.types import Message, Task, Turn, Verdict

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
ENVIRONMENTS = sorted(path.stem for path in (config_dir() / "environment").glob("*.yaml"))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_agent_without_knowledge_is_paid_by_an_environment(name: str) -> None:
    if name == "reasoning_gym":
        pytest.importorskip(name, reason="needs reasoning-gym: make extras")
    facts = facts_of(name, [], 20, BOUND)
    bad = [row for row in facts["agents"] if not row["sound"]]
    assert facts["sound"], (bad, facts["problems"])
    assert facts["tasks"] > 0 and len(facts["agents"]) > 10


class Says:
    def __init__(self, name: str, reply: Callable[[Task], str]) -> None:
        self.name, self.answer = name, reply


class Score:
    version = "1"

    def __init__(self, score: Callable[[Task, str], float]) -> None:
        self.score = score

    async def __call__(self, task: Task, answer: str) -> Verdict:
        got = self.score(task, answer)
        return Verdict(gate="score", passed=True, score=got)


class Small:
    """An environment of coin questions whose scorer is given."""

    name, version = "small", "1"

    def __init__(
        self, score: Callable[[Task, str], float], *, heads: float = 0.5, leaks: bool = False,
        salt: str = "",
    ) -> None:  # fmt: skip
        self._score, self._heads, self._leaks, self._salt = score, heads, leaks, salt

    def tasks(self, split: str, seed: int) -> Iterator[Task]:
        if split not in ("train", "test"):
            raise UserError(f"no split {split}")
        rng = Random(f"{'' if self._leaks else split}{seed}{self._salt}")
        for number in count():
            gold = "0" if rng.random() < self._heads else "1"
            asked = f"toss {number} of {rng.random()}"
            yield Task(
                id=f"{split}-{seed}-{number}", env="small", split=split, data={"gold": gold},
                prompt=(Message(role="user", content=asked),),
            )  # fmt: skip

    def open(self, task: Task) -> Any:
        return Session()

    def checks(self) -> Mapping[str, Any]:
        return {"score": Score(self._score)}

    def detectors(self) -> Mapping[str, Any]:
        return {}

    def truth(self, task: Task, answer: str) -> float | None:
        return None

    def canonical(self, task: Task, answer: str) -> str | None:
        return answer

    def oracle(self) -> Says:
        return Says("oracle", lambda task: f"gold {task.data['gold']} {task.id}")

    def adversaries(self) -> list[Says]:
        return []


class Session:
    answer = ""

    async def step(self, turn: Turn) -> None:
        self.answer = turn.text

    async def close(self) -> None: ...


def _exact(task: Task, answer: str) -> float:
    return float(answer == f"gold {task.data['gold']} {task.id}")


# Scorers written from the published description of defects in other people's environments.
def any_text_is_right(task: Task, answer: str) -> float:
    """Compares whether both texts are empty instead of the texts (a halting scorer)."""
    return float(bool(answer) == bool(task.data["gold"]))


def raises_on_text(task: Task, answer: str) -> float:
    """Reads numbers without expecting anything else (a factorization scorer)."""
    return float(sum(int(part) for part in answer.split()[-1].split("-")[-1:]) >= 0)


def skewed(task: Task, answer: str) -> float:
    """A fair scorer over answers that are nearly always the same (a coin-flip task)."""
    return float(answer == task.data["gold"] or _exact(task, answer))


def made(**args: Any) -> Callable[[], Small]:
    return lambda: Small(**args)


BUILDS: dict[str, Callable[[], Small]] = {
    "fair": made(score=_exact),
    "any_text": made(score=any_text_is_right),
    "raises": made(score=raises_on_text),
    "skewed": made(score=skewed, heads=0.92),
    "leaks": made(score=_exact, leaks=True),
}
_instances = count()


def fair() -> Small:
    return BUILDS["fair"]()


def any_text() -> Small:
    return BUILDS["any_text"]()


def raises() -> Small:
    return BUILDS["raises"]()


def skew() -> Small:
    return BUILDS["skewed"]()


def leaks() -> Small:
    return BUILDS["leaks"]()


def unsteady() -> Small:
    return Small(_exact, salt=str(next(_instances)))


def refuses_half() -> Small:
    env = Small(lambda task, answer: max(_exact(task, answer), 0.5 * (answer == "")))
    env.audit_bounds = {"null": (0.5, "half of these tasks ask for silence")}  # type: ignore[attr-defined]
    return env


def _facts(function: Callable[[], Small]) -> dict[str, Any]:
    return facts_of(f"{__name__}:{function.__name__}", [], 30, BOUND)


def _failing(facts: dict[str, Any]) -> set[str]:
    return {row["agent"] for row in facts["agents"] if not row["sound"]}


def test_a_fair_environment_is_sound() -> None:
    facts = _facts(fair)
    assert facts["sound"], (_failing(facts), facts["problems"])
    assert facts["agents"][0]["agent"] == "oracle" and facts["agents"][0]["mean"] == 1.0


def test_a_scorer_that_pays_any_text_is_found() -> None:
    assert _failing(_facts(any_text)) >= {"junk", "echo", "refusal", "constant 0"}


def test_a_scorer_that_raises_is_found_with_its_exception() -> None:
    facts = _facts(raises)
    row = next(row for row in facts["agents"] if row["agent"] == "refusal")
    assert not row["sound"] and "ValueError" in row["exceptions"][0]


def test_a_constant_that_is_mostly_right_is_found() -> None:
    assert "constant 0" in _failing(_facts(skew))


def test_leakage_and_changing_tasks_are_found() -> None:
    assert any("stands in train as well" in problem for problem in _facts(leaks)["problems"])
    assert any("two instances" in problem for problem in _facts(unsteady)["problems"])


def test_a_declared_bound_is_kept_and_its_reason_is_shown() -> None:
    facts = _facts(refuses_half)
    row = next(row for row in facts["agents"] if row["agent"] == "null")
    assert row["sound"] and row["mean"] == 0.5 and row["reason"].startswith("half of these")


def test_the_command_says_so_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    main([f"{__name__}:fair", "--tasks", "5"])
    assert capsys.readouterr().out.rstrip().endswith("sound")
    with pytest.raises(SystemExit) as caught:
        main([f"{__name__}:any_text", "--tasks", "5", "--json"])
    assert caught.value.code == 3
    assert json.loads(capsys.readouterr().out)["sound"] is False
    with pytest.raises(UserError, match="there is no environment 'nope'"):
        main(["nope"])


@pytest.mark.skipif(not (SHARED / "reasoning_gym_scorer_audit.json").exists(), reason="no data")
def test_the_bound_finds_the_known_defects_in_recorded_scores() -> None:
    """Recorded mean scores and counts of exceptions of reasoning-gym's scorers, put through the
    audit's verdict; tests/environments/test_reasoning_gym.py runs the scorers themselves."""
    recorded = json.loads((SHARED / "reasoning_gym_scorer_audit.json").read_text())
    failing = {}
    for name, probes in recorded.items():
        paid = [
            Paid(name=probe, mean=mean, most=mean, bound=BOUND, exceptions=["raised"] * raised)
            for probe, (mean, raised) in probes.items()
        ]
        if bad := [one.name for one in paid if not one.sound]:
            failing[name] = bad
    known = ("game_of_life_halting", "coin_flip", "course_schedule", "circuit_logic",
             "prime_factorization", "boxnet", "polynomial_equations", "ransom_note",
             "isomorphic_strings")  # fmt: skip
    assert set(known) <= set(failing), set(known) - set(failing)
    assert "chain_sum" not in failing and len(failing) < len(recorded) / 2
