"""The composition root: the only place that turns names of a config into objects.

A rollout worker calls `worker`, the front end `environment`, `client` and `rewarder`; the learner's
parts are put together in `learning`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rltrain.config import RunConfig
from rltrain.config.rollout import EnvironmentConfig
from rltrain.detectors import RunMonitor, build_screen
from rltrain.errors import UserError
from rltrain.outage import Report, unreported
from rltrain.protocols import Check, Environment
from rltrain.rewards import GatedReward, RewardModelCheck
from rltrain.rewards.judges import Judges, make_judges, pairwise_check, prompts_of
from rltrain.rewards.lint import problems
from rltrain.rewards.probe import Probed, Unasked, probe, probe_quickly
from rltrain.rewards.stages import JUDGE_PAIRWISE, JUDGES
from rltrain.rollout.collect import Collector
from rltrain.rollout.engine_client import ClientConfig, EngineClient
from rltrain.rollout.render import Renderer
from rltrain.track import append_event

if TYPE_CHECKING:
    from rltrain.rollout.worker import Worker

TOKEN_ENV = "RLTRAIN_ENGINE_TOKEN"
PLACE_ENV = "RLTRAIN_PLACE"
ADAPTER = "adapter"
"""Name under which engines know the policy's LoRA adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the processes of a run find each other. Travels in the environment; holds no secret."""

    model: str
    """Folder of the policy that training starts from."""
    engines: tuple[str, ...]
    judge: str | None
    """Base URL of our own judge server, ending in /v1."""
    queue: str
    """ZeroMQ address of the learner."""
    dtype: str
    """What the engines compute in: `float32`, `bfloat16` or `float16`."""
    run: str | None = None
    """Run directory whose events tell of outages; None outside of a run."""
    process: str = "front end"
    """This process, as events name it."""

    def report(self, kind: str, text: str) -> None:
        """Add an event to the run's, if there is a run. Never raises: an event that the disk does
        not take must not cost a rollout."""
        if not self.run:
            return
        with contextlib.suppress(OSError):
            append_event(Path(self.run), process=self.process, kind=kind, text=text)

    def to_env(self) -> dict[str, str]:
        return {PLACE_ENV: json.dumps(asdict(self))}

    @staticmethod
    def from_env() -> Place:
        values = json.loads(os.environ[PLACE_ENV])
        return Place(**{**values, "engines": tuple(values["engines"])})


def environment(config: EnvironmentConfig) -> Environment:
    """Call the environment's entry point. Raises `UserError` if it cannot be imported or built."""
    module_name, function_name = config.entry.split(":")
    try:
        build = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"environment.entry={config.entry} cannot be loaded: {error}") from error
    try:
        made: Environment = build(**config.args)
    except TypeError as error:
        raise UserError(f"environment.args do not fit {config.entry}: {error}") from error
    return made


def client(config: RunConfig, place: Place, renderer: Renderer) -> EngineClient:
    """A sampler over the run's engines, for which initial weights do not count; the API token
    comes from the process's environment."""
    return EngineClient(
        ClientConfig(
            urls=place.engines,
            api_key=os.environ[TOKEN_ENV],
            model=ADAPTER if config.train.lora else "policy",
            temperature=config.rollout.temperature,
            stop_ids=renderer.stop_ids,
            timeout_s=config.rollout.timeout_s,
            retries=config.rollout.retries,
            patience_s=config.rollout.patience_s,
            initial=False,
        ),
        renderer.text,
        place.report,
    )


def judge(
    config: RunConfig, env: Environment, endpoint: str | None, report: Report = unreported
) -> Judges:
    """The judges of a run: the configured endpoints, or our own server at `endpoint`."""
    return make_judges(
        config.rewards.judge,
        env.judge_prompt,
        endpoint=endpoint,
        compares=_compares(config),
        report=report,
    )


def _compares(config: RunConfig) -> bool:
    return any(stage.check == JUDGE_PAIRWISE for stage in config.rewards.stages)


def rewarder(config: RunConfig, env: Environment, judged_by: Check | None) -> GatedReward:
    """Gates and detectors. Without a judge, its stages are left out (evaluation)."""
    stages = [s for s in config.rewards.stages if judged_by or s.check not in JUDGES]
    pairwise = pairwise_check(config.rewards.judge, judged_by)
    part = config.rewards.reward_model
    scored = any(stage.check == "reward_model" for stage in stages)
    model = RewardModelCheck(part.folder, part.pass_at) if scored else None
    screen = build_screen(config.detectors, env)
    return GatedReward(stages, env, screen, judged_by, model, config.rewards.bonus, pairwise)


def check_rewards(config: RunConfig, env: Environment) -> None:
    """What `rltrain lint-rewards` refuses, as far as a second takes. Raises `UserError`."""
    found = lint_rewards(config, env, quick=True).problems
    if found:
        more = f" ({len(found) - 1} more: `rltrain lint-rewards`)" if len(found) > 1 else ""
        raise UserError(found[0] + more)


def lint_rewards(config: RunConfig, env: Environment, *, quick: bool = False) -> Probed:
    """Everything that is wrong with the rewards; answers are tried only if the config is right."""
    from rltrain.algo.advantages import GREEDY

    part = config.rewards
    gated = rewarder(config, env, Unasked())
    found = problems(part, config.rollout.timeout_s)
    if _compares(config) and not part.judge.pairwise.reference and config.algo.advantage in GREEDY:
        found.append(
            "rewards.stages: 'judge_pairwise' compares siblings, and says nothing of the greedy "
            f"answer that algo.advantage={config.algo.advantage} subtracts; name a "
            "rewards.judge.pairwise.reference"
        )
    if found:
        return Probed(tasks=0, problems=tuple(found), complete=False)
    stream = env.tasks("train", config.seed)
    tasks = list(itertools.islice(stream, min(16, part.lint.tasks) if quick else part.lint.tasks))
    shown_in = prompts_of(part.judge, env.judge_prompt, compares=_compares(config))
    tried = (probe_quickly if quick else probe)(gated, tasks, part.lint, prompts=shown_in)
    return asyncio.run(tried)


def worker(
    config: RunConfig, place: Place, name: str
) -> tuple[Worker, Callable[[], Awaitable[None]]]:
    """A rollout worker, ready to run, and what closes its connections."""
    from rltrain.algo.advantages import GREEDY
    from rltrain.rollout.worker import Worker

    env = environment(config.environment)
    renderer = Renderer.load(place.model)
    judged_by = judge(config, env, place.judge, place.report) if config.uses_judge else None
    engines = client(config, place, renderer)
    greedy = engines.variant(temperature=0.0) if config.algo.advantage in GREEDY else None
    rewards = rewarder(config, env, judged_by)
    collector = Collector(env, engines, renderer, rewards, config.rollout, greedy)

    async def close() -> None:
        await engines.aclose()
        if judged_by:
            await judged_by.aclose()

    return Worker(place.queue, name, collector, judged_by.metrics if judged_by else dict), close


def check_names(config: RunConfig) -> None:
    """Fail early, before anything is built or started, on names that no dict knows."""
    from rltrain.algo.advantages import ADVANTAGES
    from rltrain.algo.aggregation import AGGREGATIONS
    from rltrain.algo.kl import KL
    from rltrain.algo.proximal import PROXIMAL
    from rltrain.batch.resolve import advantage_of, fewest_of, replacements_of
    from rltrain.train.mismatch_gate import correction_of
    from rltrain.train.objective import Objective

    RunMonitor(config.detectors)
    if config.train.device == "cuda":
        from rltrain.train.model import pick_device

        pick_device("cuda")
    algo = config.algo
    choices: Sequence[tuple[str, str, Mapping[str, object]]] = (
        ("advantage", algo.advantage, ADVANTAGES),
        ("aggregation", algo.aggregation, AGGREGATIONS),
        ("proximal", algo.proximal, PROXIMAL),
        ("kl.estimator", algo.kl.estimator, KL),
    )
    for key, value, known in choices:
        if value not in known:
            raise UserError(f"config algo.{key}: {value!r} is not one of {', '.join(known)}")
    fewest_of(config)
    replacements_of(config)
    advantage_of(config)
    Objective.from_config(algo, config.rollout.temperature)
    correction_of(config.mismatch, algo)
