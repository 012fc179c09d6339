"""A person's decisions on a run's flags: append-only, and labelled data for the detectors.

    rollouts/*.parquet -> flags -> decisions in reviews.jsonl -> labelled answers

The id of a flag is `step.lease.sample.detector`: it names one finding for as long as the run's
files are there. The newest decision on a flag counts; none is ever removed.
"""

from __future__ import annotations

import getpass
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rltrain import build
from rltrain.bench.detectors_cases import Case
from rltrain.errors import UserError
from rltrain.rundir import RunDir
from rltrain.track.rollouts import read_table

COLUMNS = ("step", "lease", "sample", "task_id", "request", "answer", "completion", "truth",
           "reward", "flags")  # fmt: skip
DECISIONS = ("confirmed", "rejected")
SLACK = 5_000
"""Tasks looked through beyond the leases of a run: replaced ones are drawn from the same stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagRow:
    """One finding in one stored rollout."""

    id: str
    detector: str
    evidence: str
    action: str
    rollout: Mapping[str, Any]
    decision: str | None = None


def flag_rows(run: Path, detector: str | None = None) -> Iterator[FlagRow]:
    """Findings of all stored steps, oldest first, with the newest decision on each.

    Raises `UserError` if the run has no rollouts, a file is damaged, or reviews.jsonl is."""
    decided = {row["id"]: row["decision"] for row in read_reviews(run)}
    for row in rollouts(run):
        for flag in row["flags"] or ():
            if detector is None or flag["detector"] == detector:
                name = f"{row['step']}.{row['lease']}.{row['sample']}.{flag['detector']}"
                yield FlagRow(
                    id=name, detector=flag["detector"], evidence=flag["evidence"],
                    action=flag["action"], rollout=row, decision=decided.get(name),
                )  # fmt: skip


def rollouts(run: Path) -> Iterator[dict[str, Any]]:
    """Rows of all stored steps, oldest first. Raises `UserError` if there are none."""
    import pyarrow as pa  # type: ignore[import-untyped]

    files = sorted((run / "rollouts").glob("step-*.parquet"))
    if not files:
        raise UserError(f"{run} has no rollouts; give a run directory such as runs/segments_cpu")
    for path in files:
        try:
            table = read_table(path)
            # Earlier versions kept fewer columns.
            kept = [name for name in COLUMNS if name in table.column_names]
            yield from table.select(kept).to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def read_reviews(run: Path) -> list[dict[str, Any]]:
    """All decisions, oldest first. Raises `UserError` naming a damaged line."""
    path = run / "reviews.jsonl"
    rows = []
    if path.exists():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
                if row["decision"] not in DECISIONS or not isinstance(row["id"], str):
                    raise ValueError("no decision on an id")
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path}, line {number}: not a decision ({error})") from error
            rows.append(row)
    return rows


def review(run: Path, ids: Sequence[str], decision: str, note: str = "") -> None:
    """Append a decision on each flag. Raises `UserError` for an id that the run does not have; then
    nothing is written."""
    known = {row.id: row for row in flag_rows(run)}
    missing = [name for name in ids if name not in known]
    if missing:
        raise UserError(
            f"{run} has no flag {missing[0]!r}; `rltrain flags {run} --list` shows their ids"
        )
    lines = [
        json.dumps(
            {
                "id": name, "decision": decision, "detector": known[name].detector,
                "at": time.time(), "by": _who(), "note": note,
            },
            ensure_ascii=False,
        )
        for name in ids
    ]  # fmt: skip
    # One write to a file opened for appending, so that two reviewers do not mix their lines.
    handle = os.open(run / "reviews.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, ("\n".join(lines) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid())


def decided_cases(run: Path) -> list[Case]:
    """One labelled answer per rollout with a decision; detectors nobody decided on stay open.

    Raises `UserError` if nothing is decided yet."""
    by_rollout: dict[str, list[FlagRow]] = {}
    for row in flag_rows(run):
        if row.decision:
            by_rollout.setdefault(row.id.rsplit(".", 1)[0], []).append(row)
    if not by_rollout:
        raise UserError(f"nothing is decided yet in {run}; see `rltrain flags {run} --list`")
    env, known = _data(run, {rows[0].rollout["task_id"] for rows in by_rollout.values()})
    return [
        Case(
            id=f"{run.name}.{name}", source=f"reviewed-{run.name}",
            template=rows[0].rollout["answer"],
            request=rows[0].rollout["request"], answer=rows[0].rollout["answer"],
            kinds=frozenset(row.detector for row in rows if row.decision == "confirmed"),
            correct=right(rows[0].rollout["truth"]),
            labelled=frozenset(row.detector for row in rows), env=env,
            data=known.get(rows[0].rollout["task_id"], {}),
            completion=rows[0].rollout.get("completion") or "",
        )
        for name, rows in by_rollout.items()
    ]  # fmt: skip


def right(truth: float | None) -> bool | None:
    """Whether a measured truth says that an answer is right; None if it was not measured."""
    return None if truth is None else truth == 1.0


def _data(run: Path, wanted: set[str]) -> tuple[str, dict[str, Mapping[str, Any]]]:
    """Name of the run's environment, and hidden data of its tasks; drawn again from the seed."""
    config = RunDir(run).load_config()
    env = build.environment(config.environment)
    leases = max(row["lease"] for row in rollouts(run))
    found: dict[str, Mapping[str, Any]] = {}
    for task in islice(env.tasks("train", config.seed), leases + SLACK):
        if task.id in wanted:
            found[task.id] = dict(task.data)
        if len(found) == len(wanted):
            break
    return env.name, found
