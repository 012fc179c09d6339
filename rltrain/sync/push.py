"""The course of one push, the same for full weights and adapters.

Nothing is changed in an engine before the digests of every worker agree; from `pause` to `resume`
the engines take no step; and whatever happens in between, `resume` is called. If loading itself
failed, the version is first set to a name that the engine client refuses, so that tokens sampled
from half-loaded weights never count as anybody's. A push that an engine did not survive is done
again from its start once that engine answers: nothing in it depends on what went before.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rltrain.config.rollout import SyncConfig
from rltrain.errors import EngineFault, SyncError
from rltrain.sync import probe
from rltrain.sync.digest import difference, digests
from rltrain.sync.engines import Engines
from rltrain.sync.passage import passage
from rltrain.sync.worker_ext import TENSORS

UNPROVEN = "unproven"
TRIES = 4
"""Of one push, each after every engine was found to answer."""
SETTLE_S = 1.0
"""Pause before a push starts over: an engine that dies may answer for a moment yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What one push sends."""

    tensors: Mapping[str, torch.Tensor]
    """CPU, contiguous, in the engine's dtype."""
    files: Mapping[str, str]
    """Further small files by name."""


class Pusher:
    """Sends payloads to the engines and proves them. Subclasses say what the payload is."""

    def __init__(
        self,
        engines: Engines,
        config: SyncConfig,
        *,
        dtype: torch.dtype,
        probe_ids: Sequence[int],
        run_dir: Path,
    ) -> None:
        self.engines = engines
        self.config = config
        self.dtype = dtype
        self.probe_ids = list(probe_ids)
        self.run_dir = run_dir
        self._previous: list[float] | None = None
        self._pushes = 0

    def payload(self, model: torch.nn.Module) -> Payload:
        raise NotImplementedError

    async def prepare(self, folder: str) -> None:
        """Called with verified files in place, before the pause."""

    async def push(self, model: torch.nn.Module, version: int) -> Mapping[str, float]:
        """Serve `model`'s weights as `version`. Returns seconds by part: `sync_s` (all told),
        `transfer_s`, `pause_s`, `probe_s`, and `probe_mean_abs` in nats when it was measured.

        An engine that is out of reach is waited for as long as the engines' patience lasts.
        Raises `SyncError` if an engine serves anything else or does not come back; the engines are
        resumed then, and the run must stop."""
        start = time.perf_counter()
        for attempt in itertools.count(1):
            try:
                out = await self._push(model, version)
                break
            except EngineFault as fault:
                if attempt == TRIES:
                    raise SyncError(f"push of version {version} failed: {fault}") from fault
                await asyncio.sleep(SETTLE_S)
                try:
                    await self.engines.wait_healthy()
                except EngineFault as gone:
                    raise SyncError(f"push of version {version} failed: {gone}") from gone
        out["sync_s"] = time.perf_counter() - start
        return out

    async def serves(self, version: int) -> bool:
        """Whether every engine stamps its tokens with this version. True also while one of them
        cannot be asked: what it serves is seen once it answers."""
        try:
            return set(await self.engines.versions()) <= {str(version)}
        except EngineFault:
            return True

    async def _push(self, model: torch.nn.Module, version: int) -> dict[str, float]:
        start = time.perf_counter()
        out: dict[str, float] = {}
        with passage(self.config, self.run_dir) as folder:
            await self._transfer(model, folder)
            out["transfer_s"] = time.perf_counter() - start
            out["pause_s"] = await self._switch(version)
        self._pushes += 1
        if (self._pushes - 1) % self.config.probe_every == 0:
            out |= await self._probe(model, version)
        return out

    async def _transfer(self, model: torch.nn.Module, folder: str) -> None:
        sent = await asyncio.to_thread(self._write, model, Path(folder))
        try:
            for engine, workers in enumerate(
                await self.engines.call("rltrain_stage", folder=folder)
            ):
                for worker, reply in enumerate(workers or [{"digests": {}}]):
                    wrong = difference(sent, reply["digests"])
                    if wrong is not None:
                        raise SyncError(
                            f"the weights changed on the way to engine {engine}, worker {worker}: "
                            f"{wrong}; nothing was loaded, check memory and disk and start again"
                        )
            await self.prepare(folder)
        except BaseException:
            with contextlib.suppress(EngineFault):
                await self.engines.call("rltrain_drop")
            raise

    def _write(self, model: torch.nn.Module, folder: Path) -> dict[str, str]:
        with torch.no_grad():
            payload = self.payload(model)
        sent = digests(payload.tensors)
        save_file(dict(payload.tensors), folder / TENSORS)
        for name, text in payload.files.items():
            (folder / name).write_text(text)
        return sent

    async def _switch(self, version: int) -> float:
        start = time.perf_counter()
        try:
            await self.engines.pause()
            try:
                missing = _missing(await self.engines.call("rltrain_commit"))
                if missing:
                    raise SyncError(
                        f"the engine has parameters that the learner did not send: {missing}; "
                        "learner and engine must be the same architecture"
                    )
                await self.engines.set_version(str(version))
            except BaseException:
                with contextlib.suppress(EngineFault):
                    await self.engines.set_version(UNPROVEN)
                raise
        finally:
            await self.engines.resume()
        return time.perf_counter() - start

    async def _probe(self, model: torch.nn.Module, version: int) -> dict[str, float]:
        start = time.perf_counter()
        scores = asyncio.ensure_future(asyncio.wait_for(self._scores(), 120))
        learner = await asyncio.to_thread(probe.learner_logprobs, model, self.probe_ids)
        limit = self.config.probe_tolerance
        limit = probe.TOLERANCE[self.dtype] if limit is None else limit
        worst = 0.0
        for engine, score in enumerate(await scores):
            result = probe.compare(learner, score, limit, self._previous)
            if result.problem is not None:
                raise SyncError(
                    f"engine {engine} does not serve version {version}: {result.problem}"
                )
            worst = max(worst, result.mean_abs)
        self._previous = learner
        return {"probe_s": time.perf_counter() - start, "probe_mean_abs": worst}

    async def _scores(self) -> Sequence[Sequence[float]]:
        return await self.engines.score_each(self.probe_ids)


def _missing(replies: Sequence[Sequence[Any]]) -> str:
    names = sorted({name for workers in replies for reply in workers for name in reply["missing"]})
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
