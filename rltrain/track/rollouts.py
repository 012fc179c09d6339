"""Every rollout on disk: groups -> rows -> Parquet, one file per step, and back.

rollouts/step-00001.parquet     what was trained on in step 1
eval/before.parquet, after.parquet   the same rows for the held-out tasks
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from rltrain.track.files import replacing, storable
from rltrain.track.jsonl import cut_metrics
from rltrain.track.metrics import generated
from rltrain.types import Group, Screened, Task, Verdict

_GATE = pa.struct(
    [
        ("gate", pa.string()),
        ("passed", pa.bool_()),
        ("score", pa.float64()),
        ("reason", pa.string()),
        ("wall_s", pa.float64()),
        ("cached", pa.bool_()),
        ("version", pa.string()),
    ]
)
_FLAG = pa.struct([("detector", pa.string()), ("evidence", pa.string()), ("action", pa.string())])
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])

SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("lease", pa.int64()),
        ("task_id", pa.string()),
        ("split", pa.string()),
        ("sample", pa.int64()),
        ("request", pa.string()),
        ("gold", pa.string()),
        ("answer", pa.string()),
        ("canonical", pa.string()),
        ("reward", pa.float64()),
        ("judged_reward", pa.float64()),
        ("truth", pa.float64()),
        ("gates", pa.list_(_GATE)),
        ("flags", pa.list_(_FLAG)),
        ("version", pa.int64()),
        ("lag", pa.int64()),
        ("tokens", pa.int64()),
        ("stop_reason", pa.string()),
        ("mean_logprob", pa.float64()),
        ("prompt", pa.list_(_MESSAGE)),
        ("completion", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completion_ids", pa.list_(pa.int32())),
    ]
)
"""`request` is the last user message; `gold` is the only hidden datum kept, for the report.
`completion` and the ids are exactly what was sampled; null for an episode of several turns.
`version` is the rollout's own oldest policy version, `lag` is measured from its group's (the
definition that `lag/mean` uses). `mean_logprob` is in nats per sampled token."""


def rollouts_path(run_dir: Path, step: int) -> Path:
    return run_dir / "rollouts" / f"step-{step:05d}.parquet"


def cut_after(run_dir: Path, step: int) -> int:
    """Remove the metrics and the rollouts of steps after `step`, which a run that goes on from
    there does again; returns how many steps had their metrics."""
    folder = run_dir / "rollouts"
    for path in folder.glob(".step-*.tmp"):  # half-written
        path.unlink(missing_ok=True)
    for path in folder.glob("step-*.parquet"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink(missing_ok=True)
    return cut_metrics(run_dir / "metrics.jsonl", step)


def eval_path(run_dir: Path, when: str) -> Path:
    """when: `before` or `after`."""
    return run_dir / "eval" / f"{when}.parquet"


def to_rows(groups: Sequence[Group], *, step: int, version: int) -> list[dict[str, Any]]:
    """One row per rollout. version: the policy version being trained, from which lag counts."""
    return [
        {"step": step, "lease": group.lease, "lag": version - group.version}
        | _task_columns(group.task)
        | _member_columns(member)
        for group in groups
        for member in group.members
    ]


def _task_columns(task: Task) -> dict[str, Any]:
    asked = [message.content for message in task.prompt if message.role == "user"]
    gold = task.data.get("gold")
    return {
        "task_id": task.id,
        "split": task.split,
        "request": storable(asked[-1]) if asked else "",
        "gold": None if gold is None else storable(str(gold)),
        "prompt": [{"role": m.role, "content": storable(m.content)} for m in task.prompt],
    }


def _member_columns(member: Screened) -> dict[str, Any]:
    judged = member.judged
    episode = judged.episode
    logprobs = [logprob for turn in episode.turns for logprob in turn.logprobs]
    only = episode.turns[0] if len(episode.turns) == 1 else None
    return {
        "sample": episode.sample,
        "answer": storable(episode.answer),
        "canonical": None if judged.canonical is None else storable(judged.canonical),
        "reward": member.reward,
        "judged_reward": judged.reward,
        "truth": judged.truth,
        "gates": [_gate(verdict) for verdict in judged.verdicts],
        "flags": [
            {
                "detector": flag.detector,
                "evidence": storable(flag.evidence),
                "action": flag.action,
            }
            for flag in member.flags
        ],
        "version": episode.version,
        "tokens": generated(episode),
        "stop_reason": episode.turns[-1].stop_reason,
        "mean_logprob": sum(logprobs) / len(logprobs) if logprobs else None,
        "completion": storable(only.text) if only else None,
        "prompt_ids": list(only.prompt_ids) if only else None,
        "completion_ids": list(only.completion_ids) if only else None,
    }


def _gate(verdict: Verdict) -> dict[str, Any]:
    return {
        "gate": verdict.gate,
        "passed": verdict.passed,
        "score": verdict.score,
        "reason": storable(verdict.reason),
        "wall_s": verdict.wall_s,
        "cached": verdict.cached,
        "version": verdict.version,
    }


def write_rollouts(path: Path, groups: Sequence[Group], *, step: int, version: int) -> int:
    """Write one whole Parquet file (zstd); returns the number of rollouts in it."""
    rows = to_rows(groups, step=step, version=version)
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary, compression="zstd")
    return len(rows)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The file as an Arrow table. Raises `OSError` or `pyarrow.ArrowInvalid` if it is damaged."""
    return pq.read_table(path, columns=None if columns is None else list(columns))


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    """The rows again, as plain dicts."""
    rows: list[dict[str, Any]] = read_table(path).to_pylist()
    return rows
