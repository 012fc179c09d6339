"""Task -> Group: sample the siblings, let the environment answer, judge every episode.

A sibling that the system fails is retried by the engine client and the judge, then becomes a
`Fault`: it has no reward and no vote. A policy that is wrong is a score. The two never mix.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from rltrain.config.rollout import RolloutConfig
from rltrain.errors import SystemFault
from rltrain.protocols import Environment, Sampler
from rltrain.rollout.render import Renderer
from rltrain.types import Episode, Fault, Group, Screened, Task, Turn


class Rewarder(Protocol):
    """Gates and detectors: Episode -> Screened. Raises `SystemFault` when it cannot say."""

    async def judge_episode(self, episode: Episode) -> Screened: ...


@runtime_checkable
class GroupRewarder(Protocol):
    """A rewarder with a gate that compares siblings."""

    async def judge_group(
        self, task: Task, members: Sequence[Screened], seed: int
    ) -> Sequence[Screened | SystemFault]:
        """The members in their order, or why one was lost."""
        ...


class Collector:
    """Collects groups; holds no state of its own, so any number may run at once."""

    def __init__(
        self,
        environment: Environment,
        sampler: Sampler,
        renderer: Renderer,
        rewarder: Rewarder,
        config: RolloutConfig,
        greedy: Sampler | None = None,
    ) -> None:
        """`greedy`: samples one more answer per group at temperature 0, for an advantage whose
        baseline it is."""
        self.environment = environment
        self.sampler = sampler
        self.renderer = renderer
        self.rewarder = rewarder
        self.config = config
        self.greedy = greedy

    async def group(self, lease: int, task: Task, samples: int, seed: int) -> Group:
        """Sample and judge all siblings. Never raises `SystemFault`: those become faults.

        A greedy answer is sampled beside them as number `samples`; lost, it is one fault more."""
        prompt = self.renderer.prompt(task.prompt)
        if self.greedy is None:
            return await self._siblings(lease, task, prompt, samples, seed)
        group, greedy = await asyncio.gather(
            self._siblings(lease, task, prompt, samples, seed),
            self._baseline(task, prompt, samples, seed, self.greedy),
        )
        if isinstance(greedy, Fault):
            return replace(group, faults=(*group.faults, greedy))
        return replace(group, greedy=greedy)

    async def _baseline(
        self, task: Task, prompt: Sequence[int], index: int, seed: int, sampler: Sampler
    ) -> Screened | Fault:
        try:
            first = await self._sample(prompt, 1, seed, sampler)
        except SystemFault as fault:
            return Fault(sample=index, kind=fault.kind, detail=str(fault))
        return await self._sibling(task, index, first[0], seed, sampler)

    async def _siblings(
        self, lease: int, task: Task, prompt: Sequence[int], samples: int, seed: int
    ) -> Group:
        started = time.perf_counter()
        try:
            first = await self._sample(prompt, samples, seed, self.sampler)
        except SystemFault as fault:
            kind, detail = fault.kind, str(fault)
            lost = tuple(Fault(sample=i, kind=kind, detail=detail) for i in range(samples))
            return Group(lease=lease, task=task, members=(), faults=lost)
        sampled = time.perf_counter()
        apart = await asyncio.gather(
            *(self._sibling(task, i, turn, seed, self.sampler) for i, turn in enumerate(first))
        )
        results = await self._compared(task, apart, seed)
        return Group(
            lease=lease,
            task=task,
            members=tuple(r for r in results if isinstance(r, Screened)),
            faults=tuple(r for r in results if isinstance(r, Fault)),
            timing={
                "generate_s": sampled - started,
                "reward_s": time.perf_counter() - sampled,
            },
        )

    async def _compared(
        self, task: Task, results: Sequence[Screened | Fault], seed: int
    ) -> Sequence[Screened | Fault]:
        """What is left of the siblings once they have been compared with one another."""
        if not isinstance(self.rewarder, GroupRewarder):
            return results
        members = [result for result in results if isinstance(result, Screened)]
        lost = [result for result in results if isinstance(result, Fault)]
        settled = await self.rewarder.judge_group(task, members, seed)
        for member, found in zip(members, settled, strict=True):
            if isinstance(found, SystemFault):
                index = member.judged.episode.sample
                lost.append(Fault(sample=index, kind=found.kind, detail=str(found)))
        return [*(found for found in settled if isinstance(found, Screened)), *lost]

    async def _sample(
        self, prompt: Sequence[int], n: int, seed: int, sampler: Sampler
    ) -> Sequence[Turn]:
        return await sampler.generate(prompt, n=n, seed=seed, max_tokens=self.config.max_new_tokens)

    async def _sibling(
        self, task: Task, index: int, turn: Turn, seed: int, sampler: Sampler
    ) -> Screened | Fault:
        try:
            episode = await self._episode(task, index, turn, seed, sampler)
            return await self.rewarder.judge_episode(episode)
        except SystemFault as fault:
            return Fault(sample=index, kind=fault.kind, detail=str(fault))

    async def _episode(
        self, task: Task, index: int, turn: Turn, seed: int, sampler: Sampler
    ) -> Episode:
        """Play an episode on from its first turn. Raises `SystemFault`."""
        started = time.perf_counter()
        session = self.environment.open(task)
        turns = [turn]
        try:
            while True:
                if turn.stop_reason == "length":
                    return self._end(task, index, turns, turn.text, "truncated", started)
                messages = await session.step(turn)
                if messages is None:
                    return self._end(task, index, turns, session.answer, "answered", started)
                if len(turns) >= self.config.max_turns:
                    return self._end(task, index, turns, turn.text, "max_turns", started)
                prompt = [
                    *turn.prompt_ids,
                    *turn.completion_ids,
                    *self.renderer.continuation(messages),
                ]
                next_seed = seed * 1009 + index * 31 + len(turns)
                turn = (await self._sample(prompt, 1, next_seed, sampler))[0]
                turns.append(turn)
        finally:
            await session.close()

    def _end(
        self,
        task: Task,
        index: int,
        turns: list[Turn],
        answer: str,
        ended: str,
        started: float,
    ) -> Episode:
        return Episode(
            task=task,
            sample=index,
            turns=tuple(turns),
            answer=answer,
            ended=ended,
            wall_s=time.perf_counter() - started,
        )
