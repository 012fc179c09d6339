"""The learner's side of the composition: everything the loop needs, as the run directory has it.

A learner that starts always goes on with what it finds: the newest whole checkpoint, and the ledger
with the groups that came back since. In a new directory that is step 0. So a restart after a crash
and `resume=auto` are the same thing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rltrain.build import ADAPTER, Place, client, environment
from rltrain.config import RunConfig
from rltrain.detectors import RunMonitor
from rltrain.errors import RltrainError, UserError
from rltrain.loop import Parts
from rltrain.protocols import Environment
from rltrain.record import Recorder
from rltrain.rollout.dispatch import Dispatcher
from rltrain.rollout.ledger import Ledger
from rltrain.rollout.plan import DispatchPlan
from rltrain.rollout.render import Renderer
from rltrain.rollout.replay import Replay
from rltrain.rundir import RunDir
from rltrain.track import append_event, cut_after, write_fact

if TYPE_CHECKING:
    from rltrain.protocols import WeightSync
    from rltrain.train.learner import PolicyLearner
    from rltrain.train.mismatch_gate import MismatchGate
    from rltrain.train.writer import Checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """The parts of the loop, and what their owner has to close."""

    parts: Parts
    source: Dispatcher | Replay
    checkpoints: Checkpoints
    recorder: Recorder

    def close(self, run: RunDir, *, finished: bool) -> None:
        """Close the books. After the last step whatever is still in flight is dropped as such; a
        run that stops before keeps it, to go on from there.

        Raises `RltrainError` if the last checkpoint of a finished run could not be written."""
        saved = False
        try:
            self.checkpoints.close()
            saved = True
        except RltrainError:
            if finished:  # else what ended the loop is the error to show
                raise
        finally:
            self.source.close()
            if finished and saved:
                self.source.ledger.settle_open("run_ended")
            write_fact(run.path, "ledger", self.source.ledger.totals())
            self.source.ledger.close()
            self.recorder.close()


def group_source(
    config: RunConfig, run: RunDir, place: Place, env: Environment, step: int
) -> Dispatcher | Replay:
    """Where groups come from after `step`, over the run's ledger."""
    from rltrain.algo.advantages import GREEDY
    from rltrain.batch.resolve import fewest_of, replacements_of

    rollout = config.rollout
    ledger = Ledger(run.ledger, keep_all=rollout.record)
    plan = DispatchPlan(
        groups_per_step=rollout.groups_per_step,
        group_size=rollout.group_size,
        max_steps=config.max_steps,
        max_lag=rollout.max_lag,
        seed=config.seed,
        max_fault_rate=rollout.max_fault_rate,
        pause_s=rollout.pause_s,
        max_pauses=rollout.max_pauses,
        filter_truncated=config.algo.overlong.filter,
        fewest=fewest_of(config),
        max_replaced=replacements_of(config),
        greedy=config.algo.advantage in GREEDY,
    )
    if rollout.replay:
        return Replay(Path(rollout.replay), ledger, plan, step=step)

    def notice(kind: str, text: str) -> None:
        append_event(run.path, process="learner", kind=kind, text=text)

    tasks = env.tasks("train", config.seed)
    return Dispatcher(place.queue, tasks, ledger, plan, step=step, notice=notice)


def probe_ids(env: Environment, renderer: Renderer) -> list[int]:
    """A fixed sequence on which learner and engines are compared: a real prompt and its gold
    answer if there is one."""
    task = next(iter(env.tasks("train", 0)), None)
    if task is None:
        raise UserError(f"the train split of environment {env.name} is empty; it must be endless")
    gold = str(task.data.get("gold", task.prompt[-1].content))
    return [*renderer.prompt(task.prompt), *renderer.tokenizer.encode(gold)]


def weight_sync(
    config: RunConfig, run: RunDir, place: Place, env: Environment, renderer: Renderer
) -> WeightSync:
    """How weights reach the engines; a replay has none."""
    import torch

    from rltrain.sync.adapter import AdapterSync
    from rltrain.sync.full import FileSync
    from rltrain.sync.nothing import NoSync

    if not place.engines:
        return NoSync()
    engines = client(config, place, renderer)
    arguments = {
        "dtype": getattr(torch, place.dtype),
        "probe_ids": probe_ids(env, renderer),
        "run_dir": run.path,
    }
    if config.train.lora:
        return AdapterSync(engines, config.sync, name=ADAPTER, **arguments)
    return FileSync(engines, config.sync, **arguments)


def teller(run: RunDir, kind: str) -> Callable[[str], None]:
    """Adds an event of this kind to the run's."""
    return lambda text: append_event(run.path, process="learner", kind=kind, text=text)


def precision_audit(
    config: RunConfig, run: RunDir, learner: PolicyLearner, sync: WeightSync
) -> Callable[[], Awaitable[None]]:
    """Compares layer by layer what both sides compute in, and keeps what it found."""
    from rltrain.sync.dtypes import audit
    from rltrain.sync.push import Pusher

    async def compare() -> None:
        if not isinstance(sync, Pusher):
            return  # a replay has no engines
        allow = config.precision.allow_mismatch
        compute = learner.precision.compute
        found = await audit(sync.engines, learner.model, compute, sync.probe_ids, allow=allow)
        write_fact(run.path, "precision", found.facts())
        if said := found.sentence():
            teller(run, "precision")(f"{said}; allowed by precision.allow_mismatch")

    return compare


def restored(
    run: RunDir, learner: PolicyLearner, monitor: RunMonitor, gate: MismatchGate
) -> int:
    """Bring learner, monitor and gate to where the run directory stands, and take back what was
    written of later steps; returns the step. The learner is as training began: so is its reference.

    Raises `UserError` if the checkpoint is not of this model and config."""
    from rltrain.train.checkpoint import step_of
    from rltrain.train.restore import newest_whole, restore, tidy

    def tell(kind: str, text: str) -> None:
        append_event(run.path, process="learner", kind=kind, text=text)

    tidy(run.checkpoints)
    folder = newest_whole(run.checkpoints, lambda problem: tell("checkpoint", problem))
    step = 0
    if folder is not None:
        kept = restore(folder, learner)
        monitor.load_state_dict(kept["monitor"])
        if "mismatch" in kept:  # not in checkpoints of earlier versions
            gate.load_state_dict(kept["mismatch"])
        step = step_of(folder)
    again = cut_after(run.path, step)
    if run.ledger.exists():
        where = f"after step {step}, from {folder.name}" if folder else "from the beginning"
        tell("resume", f"goes on {where}; {again} recorded step(s) are done again")
    return step


def learning(config: RunConfig, run: RunDir, place: Place) -> Learning:
    """Everything the loop needs, restored from where the run stands.

    Raises `UserError` if checkpoint or ledger do not belong to this config."""
    import torch

    from rltrain.batch.resolve import batcher
    from rltrain.train.mismatch_gate import MismatchGate
    from rltrain.train.model import load_policy
    from rltrain.train.resolve import learner_of
    from rltrain.train.writer import Checkpoints

    torch.manual_seed(config.seed)
    torch.set_num_threads(config.train.threads)
    env = environment(config.environment)
    renderer = Renderer.load(place.model)
    learner = learner_of(config, load_policy(place.model, config.train))
    monitor = RunMonitor(config.detectors)
    gate = MismatchGate(config.mismatch, config.algo, learner, teller(run, "mismatch"))
    learner.precision.tell = lambda overflow: teller(run, "overflow")(overflow.sentence())
    step = restored(run, learner, monitor, gate)
    source = group_source(config, run, place, env, step)
    books = (run.metrics, run.ledger, run.ledger.with_name(f"{run.ledger.name}-wal"))
    keep = config.train.keep_checkpoints
    checkpoints = Checkpoints(run.checkpoints, learner, renderer, keep, books)

    def save(step: int) -> None:
        extra = {"monitor": monitor.state_dict(), "mismatch": gate.state_dict()}
        checkpoints.save(step, extra)
        source.ledger.prune(checkpoints.oldest())

    recorder = Recorder(config, run, source, monitor)
    sync = weight_sync(config, run, place, env, renderer)
    parts = Parts(
        groups=source,
        make_batch=batcher(config, learner.computes_all),
        learner=learner,
        sync=sync,
        record=recorder,
        save=save,
        audit=precision_audit(config, run, learner, sync),
        gate=gate,
        done=step,
    )
    return Learning(parts=parts, source=source, checkpoints=checkpoints, recorder=recorder)
