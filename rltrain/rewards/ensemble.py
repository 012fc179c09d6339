"""Several judges, one verdict.

    majority    1 if more than half of the weight passes, else 0
    mean        weighted mean score; passes from `pass_at` on
    min         least score; passes from `pass_at` on
    unanimous   1 if all pass, else 0

A member that faults is left out if a quorum of the others answered; if not, the whole is a fault.
Leaving one out changes what an answer earns, so by default the quorum is everybody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum

from rltrain.config.judge import Rule
from rltrain.errors import JudgeFault, UserError
from rltrain.rewards.judge import LLMJudge
from rltrain.types import Task, Verdict


@dataclass(slots=True, kw_only=True)
class EnsembleStats:
    """Counters since construction."""

    compared: int = 0
    """Answers on which at least two members gave a verdict."""
    disagreed: int = 0
    """Those on which not all of them decided the same."""
    left_out: int = 0
    """Members' faults that a quorum made up for."""
    no_quorum: int = 0
    """Answers lost because too few members answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What one member said."""

    passed: bool
    score: float
    weight: float


def combine(votes: Sequence[Vote], rule: Rule, pass_at: float) -> tuple[bool, float]:
    """(passed, score in [0, 1]). votes: at least one; weights are positive."""
    total = fsum(vote.weight for vote in votes)
    if rule == "majority":
        passed = fsum(vote.weight for vote in votes if vote.passed) > total / 2
        return passed, float(passed)
    if rule == "unanimous":
        passed = all(vote.passed for vote in votes)
        return passed, float(passed)
    if rule == "min":
        score = min(vote.score for vote in votes)
    else:
        score = min(1.0, fsum(vote.weight * vote.score for vote in votes) / total)
    return score >= pass_at, score


class EnsembleJudge:
    """A `Judge` made of judges. Use one instance inside one event loop; `aclose()` it."""

    def __init__(
        self,
        members: Sequence[LLMJudge],
        weights: Sequence[float],
        *,
        rule: Rule,
        pass_at: float,
        quorum: int | None = None,
    ) -> None:
        """weights: one per member. quorum: members that must answer; None is all."""
        if not members or len(members) != len(weights):
            raise UserError("rewards.judge.ensemble needs members, each with a weight.")
        self.members = tuple(members)
        self.stats = EnsembleStats()
        self.version = f"{rule}({'|'.join(member.version for member in members)})"
        self._weights = tuple(weights)
        self._rule: Rule = rule
        self._pass_at = pass_at
        self._quorum = len(members) if quorum is None else quorum

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Ask every member at once. Raises `JudgeFault` without a quorum, and whatever else a
        member raises."""
        started = time.perf_counter()
        asked = [asyncio.ensure_future(_vote(member, task, answer)) for member in self.members]
        try:
            said = await asyncio.gather(*asked)
        except BaseException:
            for pending in asked:
                pending.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            raise
        given = [(n, v) for n, v in enumerate(said) if not isinstance(v, JudgeFault)]
        faults = [v for v in said if isinstance(v, JudgeFault)]
        if len(given) < self._quorum:
            self.stats.no_quorum += 1
            raise JudgeFault(
                f"{len(given)} of {len(said)} judges answered, fewer than the quorum of "
                f"{self._quorum}: {faults[0]}"
            ) from faults[0]
        self.stats.left_out += len(faults)
        verdicts = [verdict for _, verdict in given]
        self._compare(verdicts)
        votes = [
            Vote(passed=v.passed, score=v.score, weight=self._weights[n]) for n, v in given
        ]
        passed, score = combine(votes, self._rule, self._pass_at)
        return Verdict(
            gate="judge",
            passed=passed,
            score=score,
            reason=f"{self._rule}: {_listed(said)}",
            wall_s=time.perf_counter() - started,
            version=self.version,
            cached=all(verdict.cached for verdict in verdicts),
        )

    async def preflight(self) -> None:
        """As `LLMJudge`, for every member."""
        await asyncio.gather(*(member.preflight() for member in self.members))

    async def aclose(self) -> None:
        for member in self.members:
            await member.aclose()

    def metrics(self) -> dict[str, float]:
        """The members' counters, summed (`judge/mean_latency_s`: averaged), those of the ensemble,
        and `judge/disagreement_rate` over answers that several members judged."""
        out = summed([member.metrics() for member in self.members])
        out |= {f"judge/{name}": float(value) for name, value in asdict(self.stats).items()}
        if self.stats.compared:
            out["judge/disagreement_rate"] = self.stats.disagreed / self.stats.compared
        return out

    def _compare(self, verdicts: Sequence[Verdict]) -> None:
        if len(verdicts) > 1:
            self.stats.compared += 1
            self.stats.disagreed += len({verdict.passed for verdict in verdicts}) > 1


def summed(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Counters of several judges as one's. A sum of tokens or money is left out if nothing of it is
    known; latency is averaged over answered questions."""
    out: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            out[name] = out.get(name, 0.0) + value
    if "judge/mean_latency_s" in out:
        out["judge/mean_latency_s"] = out["judge/latency_s"] / max(1.0, out["judge/verdicts"])
    return out


async def _vote(member: LLMJudge, task: Task, answer: str) -> Verdict | JudgeFault:
    try:
        return await member(task, answer)
    except JudgeFault as fault:
        return fault


def _listed(said: Sequence[Verdict | JudgeFault]) -> str:
    return ", ".join("fault" if isinstance(v, JudgeFault) else f"{v.score:g}" for v in said)
