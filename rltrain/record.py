"""What is kept of a step: ledger settled, rollouts stored, one row of metrics, alarms raised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rltrain.batch.resolve import fewest_of, overlong_of
from rltrain.batch.samples import overlong_metrics
from rltrain.config import RunConfig
from rltrain.detectors import RunMonitor
from rltrain.rewards.judge_cost import StepSpending
from rltrain.rewards.savings import savings
from rltrain.rollout.dispatch import Dispatcher
from rltrain.rollout.replay import Replay
from rltrain.rollout.settle import settle_all
from rltrain.rundir import RunDir
from rltrain.track import (
    FanOut,
    JsonlTracker,
    WandbTracker,
    append_event,
    group_metrics,
    rollouts_path,
    to_rows,
    write_rollouts,
)
from rltrain.types import Group, StepStats


class Recorder:
    """Implements `loop.Record`. Owned by the learner's rank 0."""

    def __init__(
        self, config: RunConfig, run: RunDir, source: Dispatcher | Replay, monitor: RunMonitor
    ) -> None:
        self.config = config
        self.run = run
        self.source = source
        self.spending = StepSpending()
        self.monitor = monitor
        self.wandb = WandbTracker(
            run.path, config.track, name=run.path.name, config=config.model_dump(mode="json")
        )
        self.sinks = FanOut([JsonlTracker(run.metrics), self.wandb])

    def __call__(
        self, step: int, groups: Sequence[Group], stats: StepStats, seconds: Mapping[str, float]
    ) -> None:
        """Everything about step `step`, which trained policy version `step - 1`."""
        settle_all(
            self.source.ledger,
            groups,
            step,
            filter_truncated=self.config.algo.overlong.filter,
            fewest=fewest_of(self.config),
        )
        write_rollouts(rollouts_path(self.run.path, step), groups, step=step, version=step - 1)
        judge_gate = "judge" if self.config.uses_judge else None
        metrics = group_metrics(groups, version=step - 1, judge_gate=judge_gate)
        metrics |= _learner_metrics(stats) | _times(seconds, groups, metrics)
        metrics |= savings(self.config.rewards.stages, groups)
        metrics |= self.spending(self.source.counters)
        metrics |= _ledger_metrics(self.source.ledger.totals())
        metrics |= self.source.sampling | overlong_metrics(groups, overlong_of(self.config))
        for alarm in self.monitor.observe(groups, metrics):
            text = f"step {step}: {alarm.name}: {alarm.evidence}"
            append_event(self.run.path, process="learner", kind="alarm", text=text)
        metrics |= {f"alarm/{alarm.name}": alarm.severity for alarm in self.monitor.active}
        for group in groups:
            for fault in group.faults:
                append_event(
                    self.run.path, process="worker", kind=f"fault:{fault.kind}", text=fault.detail
                )
        self.sinks.log(step, metrics)
        count = self.config.track.rollouts_per_step
        if count and (step == 1 or step % 10 == 0):
            self.wandb.rollouts(step, to_rows(groups, step=step, version=step - 1))

    def close(self) -> None:
        self.sinks.close()


def _learner_metrics(stats: StepStats) -> dict[str, float]:
    return {
        "loss": stats.loss,
        "grad_norm": stats.grad_norm,
        "lr": stats.lr,
        "tokens/trained": float(stats.tokens),
        **stats.metrics,
    }


def _times(
    seconds: Mapping[str, float], groups: Sequence[Group], metrics: Mapping[str, float]
) -> dict[str, float]:
    step_s = sum(seconds[part] for part in ("wait_s", "learn_s", "sync_s"))
    longest = {
        f"time/{part}": max((g.timing.get(part, 0.0) for g in groups), default=0.0)
        for part in ("generate_s", "reward_s")
    }
    return {
        **{f"time/{name}": value for name, value in seconds.items()},
        **longest,
        "time/step_s": step_s,
        "tokens_per_s": metrics.get("tokens/generated", 0.0) / max(step_s, 1e-9),
    }


def _ledger_metrics(totals: Mapping[str, object]) -> dict[str, float]:
    dropped = totals["dropped"]
    assert isinstance(dropped, dict)
    out = {f"ledger/{key}": float(str(totals[key])) for key in ("issued", "consumed", "in_flight")}
    return {**out, "ledger/dropped": float(sum(dropped.values()))}
