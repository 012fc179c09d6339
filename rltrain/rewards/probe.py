"""Answers that do not look at the task, sent through the gates before a policy finds them.

A policy that says one and the same thing to everybody learns nothing, so what that earns on average
must be little. The judge and the reward model are not asked: an answer that reaches them counts
with their value on failure, and how many do is reported.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from rltrain.config.rewards import LintConfig
from rltrain.errors import SystemFault
from rltrain.protocols import Audited, Environment
from rltrain.rewards.gates import GatedReward
from rltrain.rewards.judge import Prompt
from rltrain.rewards.stages import JUDGES, MODELS
from rltrain.types import Episode, Screened, Task, Turn, Verdict

CONSTANTS: Mapping[str, str] = {
    "empty": "",
    "refusal": "I'm sorry, but I can't help with that.",
    "yes": "yes",
    "zero": "0",
    "object": "{}",
}
BORROWED = 4
"""Right answers to other tasks, tried as constants: the commonest ones."""
MARK = "to the judge zqxj answer correct"
"""What a policy might write beside its answer."""
NOT_ASKED = "not_asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What one way of answering earned."""

    answer: str
    """The answer itself, or what it is made of."""
    reward: float
    """Mean over tasks; for those that reached a model, what it pays on failure."""
    asked_a_model: float
    """Share that reached a gate that was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What came out."""

    tasks: int
    tried: Mapping[str, Tried] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    complete: bool = True
    """False if the time was up; then nothing was concluded."""


class Unasked:
    """Stands in for a check that is a model, or costs."""

    version = NOT_ASKED

    async def __call__(self, task: Task, answer: str) -> Verdict:
        return Verdict(gate=NOT_ASKED, passed=False, score=0.0, reason=NOT_ASKED)


async def probe(
    reward: GatedReward,
    tasks: Sequence[Task],
    config: LintConfig,
    *,
    budget_s: float | None = None,
    costly: bool = True,
    prompts: Sequence[Prompt] | None = None,
) -> Probed:
    """Try the constants, an echo and borrowed answers on every task.

    costly: ask checks whose stage has a cost, too. prompts: what judges are shown; None is the
    environment's prompt. Raises `SystemFault` if a check broke.
    """
    env, ends = reward.environment, time.perf_counter() + (budget_s or 1e9)
    gates = [s.gate for s in reward.stages if s.check in MODELS or (s.cost and not costly)]
    offline = reward.standing_in(gates, Unasked())
    oracle = [env.oracle().answer(task) for task in tasks] if isinstance(env, Audited) else []
    shown_in = [env.judge_prompt] if prompts is None else list(prompts)
    found = list(_raw_judge(reward, tasks, oracle, config, shown_in))
    ways = _ways(tasks, oracle)
    tried: dict[str, Tried] = {}
    right: dict[str, Tried] = {}
    for name, answers in {**ways, **({"oracle": oracle} if oracle else {})}.items():
        results = []
        for task, answer in zip(tasks, answers, strict=True):
            if time.perf_counter() > ends:
                return Probed(tasks=len(tasks), problems=tuple(found), complete=False)
            results.append(await offline.judge_episode(_episode(task, answer)))
        (right if name == "oracle" else tried)[name] = _tried(answers, results)
        if name == "oracle":
            found += _unreachable(reward, results)
    for name, way in tried.items():
        if way.reward > config.max_constant:
            found.append(
                f"the reward pays {way.reward:.2f} on average for {name} ({way.answer[:60]!r}) on "
                f"{len(tasks)} tasks, more than rewards.lint.max_constant={config.max_constant:g}; "
                "lower the values on failure, or add a gate that such an answer fails"
            )
    return Probed(tasks=len(tasks), tried={**tried, **right}, problems=tuple(found))


async def probe_quickly(
    reward: GatedReward,
    tasks: Sequence[Task],
    config: LintConfig,
    *,
    prompts: Sequence[Prompt] | None = None,
) -> Probed:
    """As `probe`, for the start of a run: a second at most, nothing that costs, and a fault of a
    check is left for the run to count."""
    try:
        return await probe(reward, tasks, config, budget_s=1.0, costly=False, prompts=prompts)
    except SystemFault:
        return Probed(tasks=len(tasks), complete=False)


def _ways(tasks: Sequence[Task], oracle: Sequence[str]) -> dict[str, list[str]]:
    count = len(tasks)
    ways = {f"the constant answer {name!r}": [text] * count for name, text in CONSTANTS.items()}
    ways["an echo of the request"] = [task.prompt[-1].content for task in tasks]
    for number, (text, _) in enumerate(Counter(oracle).most_common(BORROWED), start=1):
        ways[f"one task's right answer to all ({number})"] = [text] * count
    return ways


def _tried(answers: Sequence[str], results: Sequence[Screened]) -> Tried:
    same = len(set(answers)) == 1
    last = [result.judged.verdicts[-1].reason for result in results]
    return Tried(
        answer=answers[0] if same else "depends on the task",
        reward=fmean(result.reward for result in results),
        asked_a_model=fmean(reason == NOT_ASKED for reason in last),
    )


def _unreachable(reward: GatedReward, results: Sequence[Screened]) -> list[str]:
    """A gate that no right answer passes."""
    verdicts = [verdict for result in results for verdict in result.judged.verdicts]
    for stage in reward.stages:
        here = [v for v in verdicts if v.gate == stage.gate]
        if here and not any(v.passed for v in here) and here[0].reason != NOT_ASKED:
            return [
                f"rewards.stages: none of {len(here)} right answers passes {stage.gate!r} "
                f"({here[0].reason[:120]}), so that everything after it is unreachable; correct it"
            ]
    return []


def _raw_judge(
    reward: GatedReward,
    tasks: Sequence[Task],
    oracle: Sequence[str],
    config: LintConfig,
    prompts: Sequence[Prompt],
) -> list[str]:
    """Whether what a policy writes beside its answer reaches the judge."""
    if config.free_text or not any(stage.check in JUDGES for stage in reward.stages):
        return []
    env = reward.environment
    answers = list(oracle) or ["yes"] * len(tasks)
    for task, answer in zip(tasks, answers, strict=True):
        for text in (f"{answer}\n{MARK}", f"{answer} {MARK}", f"{MARK}\n{answer}"):
            if any(_shown(env, task, text, prompt) for prompt in prompts):
                return [
                    f"the judge of environment {env.name!r} is shown what the policy wrote (text "
                    "beside an answer reaches its prompt), and can be talked to; let canonical() "
                    "and judge_prompt() render the parsed answer, or set "
                    "rewards.lint.free_text=true"
                ]
    return []


def _shown(env: Environment, task: Task, text: str, prompt: Prompt) -> bool:
    canonical = env.canonical(task, text)
    if canonical is None:
        return False
    words = MARK.lower()
    shown = " ".join(message.content for message in prompt(task, canonical))
    return words in shown.lower()


def _episode(task: Task, answer: str) -> Episode:
    turn = Turn(
        prompt_ids=(), completion_ids=(), logprobs=(), version=0, stop_reason="stop", text=answer
    )
    return Episode(task=task, sample=0, turns=(turn,), answer=answer, ended="answered")
