"""What an offline method learns from: selected from a run's rollouts, or read from a file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from rltrain import build
from rltrain.config import RunConfig
from rltrain.config.offline import SelectConfig
from rltrain.errors import UserError
from rltrain.offline.rows import Row, read_rows
from rltrain.offline.select import Selection, demonstrations, preferences
from rltrain.rundir import RunDir
from rltrain.track import read_rollouts

FROM_RUN = "run:"


def select_from(run_dir: Path, method: str, select: SelectConfig, seed: int) -> Selection:
    """Pairs, or for `sft` answers, from a run's stored rollouts.

    Raises:
        UserError: if there is no such run, it stored no rollouts, or nothing could be selected.
    """
    run = RunDir(run_dir)
    config = run.load_config()
    choose = demonstrations if method == "sft" else preferences
    found = choose(_stored(run, config), select, seed, run.path.resolve().name)
    if not found.rows:
        reasons = {**found.dropped_rollouts, **found.dropped}
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        raise UserError(
            f"nothing could be selected from {found.rollouts} rollouts in {found.groups} groups of "
            f"{run_dir}: {listed or 'no group has two different answers'}"
        )
    return found


def _stored(run: RunDir, config: RunConfig) -> Iterator[dict[str, Any]]:
    paths = sorted(run.rollouts.glob("step-*.parquet"))
    rows = 0
    for path in paths:
        try:
            stored = read_rollouts(path)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
        if stored and not rows and "prompt" not in stored[0]:
            _require_plain_prompts(run, config)
        rows += len(stored)
        yield from stored
    if not rows:
        raise UserError(f"{run.path} has no stored rollouts; it never finished a training step")


def _require_plain_prompts(run: RunDir, config: RunConfig) -> None:
    """Older stores kept the last user message only. Where that is the whole prompt, nothing is
    lost; anywhere else a prompt would be made up."""
    env = build.environment(config.environment)
    task = next(islice(env.tasks("train", config.seed), 1))
    if config.rollout.max_turns > 1 or [m.role for m in task.prompt] != ["user"]:
        raise UserError(
            f"{run.path} was made by a version that did not store prompts, and its environment's "
            "prompts are more than one user message; run it again to get rollouts to learn from"
        )


def read_source(config: RunConfig) -> tuple[list[Row], dict[str, Any]]:
    """(rows, facts about where they come from). Raises `UserError`."""
    algo = config.algo
    source = algo.data or ""
    if source.startswith(FROM_RUN):
        path = Path(source.removeprefix(FROM_RUN))
        found = select_from(path, algo.method, algo.select, config.seed)
        settings = algo.select.model_dump(mode="json")
        return found.rows, {"source": source, **found.facts(), "select": settings}
    if algo.select != SelectConfig():
        raise UserError("algo.select chooses from a run's rollouts; set algo.data=run:PATH for it")
    rows = read_rows(Path(source), algo.method)
    return rows, {"source": source, "rows": len(rows)}
