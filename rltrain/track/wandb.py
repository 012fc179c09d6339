"""Reward curves, gate and hack rates and rollout tables for a team, in Weights & Biases.

A sink, never the record: offline by default, never stops a run, and sends no secrets. Offline runs
are uploaded later with `wandb sync <run dir>/wandb/offline-run-…`; a run that was continued has one
such folder per process that logged, all of them of one run by its id.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rltrain.config.algo import TrackConfig
from rltrain.track.files import write_text
from rltrain.track.redact import redact, redact_text

LOG = logging.getLogger("rltrain.track")

ID = Path("wandb") / "run-id"
"""File in the run directory with wandb's id of the run: a process that goes on takes the same."""

SUMMARIES = {
    "reward": "max,last", "truth": "max,last", "valid": "max,last", "gate": "max,last",
    "flag": "max,last", "alarm": "max", "lag": "mean,max", "mismatch": "mean,max",
    "time": "mean", "faults": "max", "ledger": "last", "tokens_per_s": "mean",
}
"""What the runs table shows of a group of metrics; the last value where nothing is said."""

COLUMNS = (
    "step", "task_id", "request", "answer", "gold", "reward", "judged_reward", "truth",
    "stopped_at", "flags", "lag",
)


class WandbTracker:
    """The `Tracker` for wandb. Whatever wandb raises becomes one warning; the run goes on."""

    def __init__(
        self,
        run_dir: Path,
        section: TrackConfig,
        *,
        name: str,
        config: Mapping[str, Any],
        warn: Callable[[str], None] = LOG.warning,
        connect_s: float = 20.0,
    ) -> None:
        """config: the resolved run config (redacted here). connect_s: how long `online` may try."""
        self._warn = warn
        self._rows_per_table = section.rollouts_per_step
        self._defined: set[str] = set()
        self.lost = 0
        """Calls that wandb did not take."""
        self.mode = section.wandb
        """`offline`, `online` or `disabled`: what it is now, after any fallback."""
        self._run: Any = None
        if self.mode == "disabled":
            return
        start = {
            "project": section.project, "group": section.group, "name": name,
            "dir": str(run_dir), "config": redact(dict(config)), "mode": self.mode,
        }
        self._open(run_dir, start, connect_s)

    def _open(self, run_dir: Path, start: dict[str, Any], connect_s: float) -> None:
        try:
            # An offline run cannot ask what is there; its id is enough, and `resume` a warning.
            again = {"resume": "allow"} if self.mode == "online" else {}
            self._run = _init({**start, "id": _run_id(run_dir), **again}, connect_s)
        except Exception as error:  # wandb raises its own, OSError and requests' errors
            if self.mode == "online":
                self.mode = "offline"
                self._warn(f"wandb cannot connect ({_line(error)}); logging offline instead")
                _forget()
                self._open(run_dir, start | {"mode": "offline"}, connect_s)
                return
            self.mode = "disabled"
            self._warn(f"wandb does not start ({_line(error)}); the run goes on without it")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._run is not None:
            self._try(lambda: self._log(step, metrics))

    def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show up to `track.rollouts_per_step` rows (from `rollouts.to_rows`) as a table.

        Rows are spread evenly over the step, so that no task crowds out the others."""
        if self._run is not None and rows and self._rows_per_table:
            self._try(lambda: self._table(step, _spread(rows, self._rows_per_table)))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Put the numbers of summary.json into the run's summary, under `final/`."""
        if self._run is not None:
            self._try(lambda: self._run.summary.update({"final": redact(dict(summary))}))

    def close(self) -> None:
        if self._run is not None:
            self._try(lambda: self._run.finish())  # looked up within, where it may fail
            self._run = None
        if self.lost:
            self._warn(f"wandb lost {self.lost} record(s); metrics.jsonl has them all")

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._define(metrics)
        self._run.log({"step": step, **metrics})

    def _define(self, names: Mapping[str, Any]) -> None:
        """Exact names on first sight: a glob would give no summary before its first match."""
        for name in names.keys() - self._defined:
            summary = SUMMARIES.get(name.split("/")[0], "last")
            self._run.define_metric(name, step_metric="step", summary=summary)
            self._defined.add(name)

    def _table(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        table = wandb.Table(columns=list(COLUMNS), data=[_cells(row) for row in rows])
        self._run.log({"step": step, "rollouts/sample": table})

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # `Tracker` promises that logging stops no run
            self.lost += 1
            if self.lost == 1:
                self._warn(f"wandb failed ({_line(error)}); the run goes on")


def finish_wandb(
    run_dir: Path, section: TrackConfig, *, config: Mapping[str, Any], summary: Mapping[str, Any]
) -> None:
    """Add the numbers of summary.json to a run whose learner has ended: what they say of held-out
    tasks is only known then. Does nothing where no learner has logged."""
    if section.wandb == "disabled" or not (run_dir / ID).is_file():
        return
    tracker = WandbTracker(run_dir, section, name=run_dir.name, config=config)
    tracker.finish(summary)
    tracker.close()


def _run_id(run_dir: Path) -> str:
    file = run_dir / ID
    if not file.is_file():
        write_text(file, secrets.token_hex(4))
    return file.read_text(encoding="utf-8").strip()


def _forget() -> None:
    """End wandb's own process: after a failed start it holds that run's id."""
    import wandb

    with contextlib.suppress(Exception):
        wandb.teardown()


def _init(start: Mapping[str, Any], connect_s: float) -> Any:
    import wandb  # half a second: only for those who use it

    settings = wandb.Settings(
        init_timeout=connect_s,
        login_timeout=connect_s,  # a run never waits at a prompt for a key
        x_transaction_log_flush_interval=1,  # the default loses 15 s when a run is killed
        x_disable_meta=True,  # the command line may hold secrets
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        silent=True,
    )
    run = wandb.init(**start, settings=settings)
    run.define_metric("step", hidden=True)
    return run


def _line(error: Exception) -> str:
    """The first line of an error: wandb's run over several, and ours is to be one."""
    text = str(error).strip().splitlines() or [""]
    return redact_text(f"{type(error).__name__}: {text[0]}")


def _spread(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    count = min(count, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def _cells(row: Mapping[str, Any]) -> list[Any]:
    failed = [gate["gate"] for gate in row["gates"] if not gate["passed"]]
    shown = dict(row) | {
        "stopped_at": failed[0] if failed else "",
        "flags": "; ".join(f"{flag['detector']}: {flag['evidence']}" for flag in row["flags"]),
    }
    return [shown[name] for name in COLUMNS]
