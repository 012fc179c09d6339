"""All judges of a run as one: what `judge` and `judge_pairwise` ask, over one cache file."""

from __future__ import annotations

from rltrain.config.judge import JudgeConfig
from rltrain.outage import Report, unreported
from rltrain.protocols import Check
from rltrain.rewards.ensemble import EnsembleJudge, summed
from rltrain.rewards.judge import Judge, LLMJudge, Prompt
from rltrain.rewards.judge_store import JudgeStore
from rltrain.rewards.pairwise import GroupCheck, PairwiseCheck, PairwiseJudge
from rltrain.rewards.rubric import Rubric, prompt_of
from rltrain.types import Message, Task, Verdict


class Judges:
    """A `Judge` with another beside it for comparisons. `aclose()` it."""

    def __init__(
        self, judge: Judge, pairwise: PairwiseJudge | None, store: JudgeStore | None
    ) -> None:
        self.judge = judge
        self.pairwise = pairwise
        self.version = judge.version
        self._store = store

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """One answer, judged by itself. Raises what the judge raises."""
        return await self.judge(task, answer)

    async def preflight(self) -> None:
        """Raises `UserError` if one of them does not answer."""
        await self.judge.preflight()
        if self.pairwise:
            await self.pairwise.preflight()

    async def aclose(self) -> None:
        await self.judge.aclose()
        if self.pairwise:
            await self.pairwise.aclose()
        if self._store:
            self._store.close()

    def metrics(self) -> dict[str, float]:
        """Counters of both, summed; `judge/store_faults` with a cache file."""
        out = self.judge.metrics()
        if self.pairwise:
            out = summed([out, self.pairwise.metrics()])
        if self._store:
            out["judge/store_faults"] = float(self._store.faults)
        return out


def make_judges(
    config: JudgeConfig,
    prompt: Prompt,
    *,
    endpoint: str | None = None,
    compares: bool = False,
    report: Report = unreported,
) -> Judges:
    """What a config says.

    Args:
        prompt: `environment.judge_prompt`, for judges without a rubric.
        endpoint: our own server, for judges without one. It decodes by the form asked for.
        compares: whether `judge_pairwise` is a stage.

    Raises `UserError` for what does not fit, a cache file that cannot be used included.
    """
    store = JudgeStore(config.cache_file, report) if config.cache_file else None
    made = [
        LLMJudge(
            part,
            prompt,
            endpoint=endpoint,
            guided=part.guided,
            report=report,
            store=store,
        )
        for part in config.members()
    ]
    judge: Judge = made[0]
    if config.ensemble:
        judge = EnsembleJudge(
            made,
            [member.weight for member in config.ensemble],
            rule=config.rule,
            pass_at=config.pass_at,
            quorum=config.quorum,
        )
    pairwise = None
    if compares:
        pairwise = PairwiseJudge(
            config, endpoint=endpoint, guided=config.guided, report=report, store=store
        )
    return Judges(judge, pairwise, store)


def prompts_of(config: JudgeConfig, prompt: Prompt, *, compares: bool) -> list[Prompt]:
    """Everything that a canonical answer is shown in, for a linter to look at. `compares` as above.

    Raises `UserError` for a rubric that cannot be read."""
    found: list[Prompt] = []
    for member in config.members():
        rubric = Rubric.load(member.rubric) if member.rubric else None
        found.append(prompt_of(rubric, member.max_chars) if rubric else prompt)
    if compares:
        found.append(lambda task, canonical: (Message(role="user", content=canonical),))
    return found


def pairwise_check(config: JudgeConfig, judged_by: Check | None) -> Check | None:
    """The check `judge_pairwise` of these judges: against a reference if the config names one, else
    within the group. A stand-in for judges stands in for it as well."""
    if not isinstance(judged_by, Judges):
        return judged_by
    if judged_by.pairwise is None:
        return None
    if config.pairwise.reference is None:
        return GroupCheck(judged_by.pairwise, config.pass_at)
    return PairwiseCheck(judged_by.pairwise, config.pairwise.reference, config.pass_at)
