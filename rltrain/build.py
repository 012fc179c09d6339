"""The composition root: the only place that turns names of a config into objects.

Every process of a run calls one function here: the learner `learner_parts`, a rollout worker
`worker`, the front end `environment`, `client` and `rewarder`.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rltrain.config import RunConfig
from rltrain.config.rollout import EnvironmentConfig
from rltrain.detectors import RunMonitor, build_screen
from rltrain.errors import UserError
from rltrain.protocols import Environment
from rltrain.rewards import GatedReward, LLMJudge, RewardModelCheck
from rltrain.rollout.collect import Collector
from rltrain.rollout.engine_client import ClientConfig, EngineClient
from rltrain.rollout.render import Renderer
from rltrain.rundir import RunDir
from rltrain.track import write_fact

if TYPE_CHECKING:
    from rltrain.loop import Parts
    from rltrain.rollout.dispatch import Dispatcher
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
    """A sampler over the run's engines; the API token comes from the process's environment."""
    return EngineClient(
        ClientConfig(
            urls=place.engines,
            api_key=os.environ[TOKEN_ENV],
            model=ADAPTER if config.train.lora else "policy",
            temperature=config.rollout.temperature,
            stop_ids=renderer.stop_ids,
            timeout_s=config.rollout.timeout_s,
            retries=config.rollout.retries,
        ),
        renderer.text,
    )


def judge(config: RunConfig, env: Environment, endpoint: str | None) -> LLMJudge:
    """The judge of a run: the configured endpoint, or our own server at `endpoint`."""
    own = config.rewards.judge.endpoint is None
    return LLMJudge(config.rewards.judge, env.judge_prompt, endpoint=endpoint, guided=own)


def rewarder(config: RunConfig, env: Environment, judged_by: LLMJudge | None) -> GatedReward:
    """Gates and detectors. Without a judge, the `judge` stage is left out (evaluation)."""
    stages = [s for s in config.rewards.stages if judged_by or s.check != "judge"]
    part = config.rewards.reward_model
    scored = any(stage.check == "reward_model" for stage in stages)
    model = RewardModelCheck(part.folder, part.pass_at) if scored else None
    return GatedReward(stages, env, build_screen(config.detectors, env), judged_by, model)


def worker(
    config: RunConfig, place: Place, name: str
) -> tuple[Worker, Callable[[], Awaitable[None]]]:
    """A rollout worker, ready to run, and what closes its connections."""
    from rltrain.algo.advantages import GREEDY
    from rltrain.rollout.worker import Worker

    env = environment(config.environment)
    renderer = Renderer.load(place.model)
    judged_by = judge(config, env, place.judge) if config.uses_judge else None
    engines = client(config, place, renderer)
    greedy = engines.variant(temperature=0.0) if config.algo.advantage in GREEDY else None
    rewards = rewarder(config, env, judged_by)
    collector = Collector(env, engines, renderer, rewards, config.rollout, greedy)

    async def close() -> None:
        await engines.aclose()
        if judged_by:
            await judged_by.aclose()

    return Worker(place.queue, name, collector, judged_by.metrics if judged_by else dict), close


def dispatcher(config: RunConfig, run: RunDir, place: Place, env: Environment) -> Dispatcher:
    """The learner's side of the rollouts, over the run's ledger."""
    from rltrain.algo.advantages import GREEDY
    from rltrain.batch.resolve import fewest_of, replacements_of
    from rltrain.rollout.dispatch import Dispatcher, DispatchPlan
    from rltrain.rollout.ledger import Ledger

    plan = DispatchPlan(
        groups_per_step=config.rollout.groups_per_step,
        group_size=config.rollout.group_size,
        max_steps=config.max_steps,
        max_lag=config.rollout.max_lag,
        seed=config.seed,
        max_fault_rate=config.rollout.max_fault_rate,
        filter_truncated=config.algo.overlong.filter,
        fewest=fewest_of(config),
        max_replaced=replacements_of(config),
        greedy=config.algo.advantage in GREEDY,
    )
    return Dispatcher(place.queue, env.tasks("train", config.seed), Ledger(run.ledger), plan)


def probe_ids(env: Environment, renderer: Renderer) -> list[int]:
    """A fixed sequence on which learner and engines are compared: a real prompt and its gold
    answer if there is one."""
    task = next(itertools.islice(env.tasks("train", 0), 1))
    gold = str(task.data.get("gold", task.prompt[-1].content))
    return [*renderer.prompt(task.prompt), *renderer.tokenizer.encode(gold)]


def learner_parts(config: RunConfig, run: RunDir, place: Place) -> tuple[Parts, Dispatcher]:
    """Everything the loop needs. The dispatcher is returned too, for its owner to close."""
    import torch

    from rltrain.batch.resolve import batcher
    from rltrain.loop import Parts
    from rltrain.record import Recorder
    from rltrain.sync.adapter import AdapterSync
    from rltrain.sync.full import FileSync
    from rltrain.train.checkpoint import save_checkpoint
    from rltrain.train.model import load_policy
    from rltrain.train.resolve import learner_of

    torch.manual_seed(config.seed)
    torch.set_num_threads(config.train.threads)
    env = environment(config.environment)
    renderer = Renderer.load(place.model)
    model = load_policy(place.model, config.train)
    learner = learner_of(config, model)
    engines = client(config, place, renderer)
    sync_args = {
        "dtype": getattr(torch, place.dtype),
        "probe_ids": probe_ids(env, renderer),
        "run_dir": run.path,
    }
    sync = (
        AdapterSync(engines, config.sync, name=ADAPTER, **sync_args)
        if config.train.lora
        else FileSync(engines, config.sync, **sync_args)
    )
    source = dispatcher(config, run, place, env)

    def save(step: int) -> None:
        save_checkpoint(run.checkpoints / f"step-{step:05d}", learner, renderer, step)

    parts = Parts(
        groups=source,
        make_batch=batcher(config, learner.computes_all),
        learner=learner,
        sync=sync,
        record=Recorder(config, run, source, RunMonitor(config.detectors)),
        save=save,
    )
    return parts, source


def finish_learner(run: RunDir, parts: Parts, source: Dispatcher) -> None:
    """Close the books: whatever is still in flight is dropped as such, and the totals are kept."""
    source.ledger.settle_open("run_ended")
    write_fact(run.path, "ledger", source.ledger.totals())
    source.ledger.close()
    parts.record.close()


def check_names(config: RunConfig) -> None:
    """Fail early, before anything is built or started, on names that no dict knows."""
    from rltrain.algo.advantages import ADVANTAGES
    from rltrain.algo.aggregation import AGGREGATIONS
    from rltrain.algo.kl import KL
    from rltrain.algo.proximal import PROXIMAL
    from rltrain.batch.resolve import advantage_of, fewest_of, replacements_of
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
