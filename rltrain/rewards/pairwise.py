"""Two answers to one request, compared in both orders.

Judges prefer what stands first, or last. Each pair is therefore asked twice, with the answers
exchanged; where the two replies do not agree, the pair is a tie and counts as a flip.

    against a reference   `PairwiseCheck`: win 1, tie 0.5, loss 0, per rollout
    within a group        `GroupCheck`: each sibling against a few others, its score the share of
                          wins, known once all of them have been judged
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import fsum

from rltrain.config.judge import JudgeConfig
from rltrain.errors import JudgeFault
from rltrain.outage import Report, unreported
from rltrain.rewards.judge_asker import Asker
from rltrain.rewards.judge_forms import Words
from rltrain.rewards.judge_store import JudgeStore
from rltrain.rewards.rendering import VERSION, Block, render
from rltrain.rewards.rubric import Rubric, known, request_blocks
from rltrain.types import Message, Task, Verdict

FIRST, SECOND, TIE = "A", "B", "tie"
FORM = Words({FIRST: 1.0, SECOND: 0.0, TIE: 0.5})
RULES = (
    f"Compare ANSWER {FIRST} with ANSWER {SECOND}. The order in which they stand means nothing. "
    f"Reply with exactly one word: {FIRST}, {SECOND}, or {TIE} if neither is better."
)
PENDING = "pending"
OUTCOMES = {1.0: "win", 0.5: "tie", 0.0: "loss"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One pair, as seen by its first answer."""

    forward: float
    """Score of the first answer (1 won, 0.5 tie, 0 lost) when it stood first."""
    backward: float
    """Its score when it stood second."""
    cached: bool = False

    @property
    def flipped(self) -> bool:
        """Whether the order decided."""
        return self.forward != self.backward

    @property
    def score(self) -> float:
        return 0.5 if self.flipped else self.forward


def flip_rate(pairs: Iterable[tuple[float, float]]) -> float:
    """Share of pairs whose winner changes with the order, in [0, 1]; NaN without pairs.

    pairs: score of the same answer when it stood first, and when it stood second."""
    flips = [forward != backward for forward, backward in pairs]
    return sum(flips) / len(flips) if flips else float("nan")


def schedule(count: int, opponents: int, seed: int) -> list[tuple[int, int]]:
    """Who is compared with whom: pairs i < j of `count` answers, sorted.

    Everybody has the same number of opponents: `opponents` of them, one more where both numbers are
    odd, all others where there are not so many. The answers stand in a ring in an order drawn by
    the seed, and meet those that are next."""
    if opponents >= count - 1:
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    ring = list(range(count))
    random.Random(seed).shuffle(ring)
    steps = list(range(1, opponents // 2 + 1))
    if opponents % 2:
        steps.append(count // 2 if count % 2 == 0 else opponents // 2 + 1)
    pairs = {
        (min(a, b), max(a, b))
        for step in steps
        for n, a in enumerate(ring)
        for b in [ring[(n + step) % count]]
    }
    return sorted(pairs)


def win_rates(count: int, results: Iterable[tuple[int, int, float]]) -> list[float | None]:
    """Mean score of each of `count` answers over its comparisons (Copeland's score as a share).

    results: (i, j, score of i in [0, 1]; that of j is the rest). None for who was in none."""
    scores: list[list[float]] = [[] for _ in range(count)]
    for i, j, score in results:
        scores[i].append(score)
        scores[j].append(1.0 - score)
    return [fsum(each) / len(each) if each else None for each in scores]


class PairwiseJudge:
    """Compares canonical answers. Use one instance inside one event loop; `aclose()` it."""

    def __init__(
        self,
        config: JudgeConfig,
        *,
        endpoint: str | None = None,
        guided: bool = False,
        report: Report = unreported,
        store: JudgeStore | None = None,
    ) -> None:
        """As `LLMJudge`. A rubric's instructions and criteria are shown, if there is one."""
        self._config = config
        self._instructions = f"{_asked(config)}\n\n{RULES}"
        digest = hashlib.sha256(f"{VERSION} {self._instructions}".encode()).hexdigest()[:12]
        self.version = f"{config.version}/pairwise-{digest}"
        self.asker = Asker(config, endpoint=endpoint, guided=guided, report=report, store=store)
        self.pairs = 0
        self.flips = 0

    async def compare(self, task: Task, first: str, second: str) -> Compared:
        """Ask about both orders. Equal answers tie unasked. Raises what `Asker.ask` raises."""
        if first == second:
            return Compared(forward=0.5, backward=0.5, cached=True)
        asked = [
            asyncio.ensure_future(self._ask(task, first, second)),
            asyncio.ensure_future(self._ask(task, second, first)),
        ]
        try:
            (forward, known_1), (backward, known_2) = await asyncio.gather(*asked)
        except BaseException:
            for pending in asked:
                pending.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            raise
        found = Compared(forward=forward, backward=1.0 - backward, cached=known_1 and known_2)
        self.pairs += 1
        self.flips += found.flipped
        return found

    async def rank(self, task: Task, answers: Sequence[str], seed: int) -> list[float | JudgeFault]:
        """Scores in [0, 1] of the canonical answers of a group, by win rate over its different
        answers, each of which meets `pairwise.opponents` others. Equal answers score the same; if
        there is only one, 0.5.

        An answer all of whose comparisons faulted is a `JudgeFault`, returned and not raised.
        """
        distinct = list(dict.fromkeys(answers))
        if len(distinct) == 1:
            return [0.5] * len(answers)
        pairs = schedule(len(distinct), self._config.pairwise.opponents, seed)
        asked = [self._settle(task, distinct[i], distinct[j]) for i, j in pairs]
        said = await asyncio.gather(*asked)
        faults = [one for one in said if isinstance(one, JudgeFault)]
        results = [
            (i, j, one.score)
            for (i, j), one in zip(pairs, said, strict=True)
            if not isinstance(one, JudgeFault)
        ]
        rates = win_rates(len(distinct), results)
        scores = {
            text: faults[0] if rate is None else rate
            for text, rate in zip(distinct, rates, strict=True)
        }
        return [scores[answer] for answer in answers]

    async def preflight(self) -> None:
        await self.asker.preflight(FORM)

    async def aclose(self) -> None:
        await self.asker.aclose()

    def metrics(self) -> dict[str, float]:
        """Those of `Asker`, `judge/compared_pairs`, `judge/flips` and `judge/position_flip_rate`.
        Remembered comparisons count again, as verdicts do."""
        out = self.asker.metrics()
        out |= {"judge/compared_pairs": float(self.pairs), "judge/flips": float(self.flips)}
        if self.pairs:
            out["judge/position_flip_rate"] = self.flips / self.pairs
        return out

    async def _settle(self, task: Task, first: str, second: str) -> Compared | JudgeFault:
        try:
            return await self.compare(task, first, second)
        except JudgeFault as fault:
            return fault

    async def _ask(self, task: Task, first: str, second: str) -> tuple[float, bool]:
        reading, cached = await self.asker.ask(self._shown(task, first, second), FORM, self.version)
        return reading.score, cached

    def _shown(self, task: Task, first: str, second: str) -> tuple[Message, ...]:
        blocks = [
            *request_blocks(task),
            Block(title=f"ANSWER {FIRST}", text=first),
            Block(title=f"ANSWER {SECOND}", text=second),
        ]
        return render(self._instructions, blocks, most_chars=self._config.max_chars)


class PairwiseCheck:
    """A `Check`: is the answer better than the one that the task's data holds?"""

    def __init__(self, judge: PairwiseJudge, reference: str, pass_at: float) -> None:
        """reference: key of the data."""
        self.judge = judge
        self.version = judge.version
        self._reference = reference
        self._pass_at = pass_at

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Score 1 if it wins in both orders, 0 if it loses in both, else 0.5. Raises what
        `PairwiseJudge.compare` raises, and `EnvironmentFault` for a task without reference."""
        started = time.perf_counter()
        found = await self.judge.compare(task, answer, known(task, self._reference))
        flipped = " (the order decided)" if found.flipped else ""
        return Verdict(
            gate="judge_pairwise",
            passed=found.score >= self._pass_at,
            score=found.score,
            reason=f"compared: {OUTCOMES[found.score]}{flipped}",
            wall_s=time.perf_counter() - started,
            version=self.version,
            cached=found.cached,
        )


class GroupCheck:
    """A `Check` that knows its verdicts only when the group is whole: until then they are pending.

    `GatedReward.judge_group` settles them; a verdict that stays pending was never compared."""

    def __init__(self, judge: PairwiseJudge, pass_at: float) -> None:
        self.judge = judge
        self.version = judge.version
        self.pass_at = pass_at

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Nothing is asked."""
        reason = f"{PENDING}: it is compared with its siblings"
        return Verdict(
            gate="judge_pairwise", passed=True, score=0.5, reason=reason, version=self.version
        )

    def settled(self, verdict: Verdict, score: float) -> Verdict:
        """What a pending verdict becomes."""
        return replace(
            verdict,
            passed=score >= self.pass_at,
            score=score,
            reason=f"compared: won {score:.3g} of its comparisons",
        )


def _asked(config: JudgeConfig) -> str:
    if config.rubric is None:
        return config.pairwise.instructions.strip()
    rubric = Rubric.load(config.rubric)
    looked_at = "\n".join(f"- {criterion.asks.strip()}" for criterion in rubric.criteria)
    return f"{rubric.instructions.strip()}\n\nA better answer is better at this:\n{looked_at}"
