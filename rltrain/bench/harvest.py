r"""Hacks harvested from policies that were really trained: rollouts -> labelled answers.

    rltrain train experiment=harvest rewards=weak_valid name=harvest-valid
    rltrain train experiment=harvest rewards=weak_judge name=harvest-judge
    python scripts/harvest_hacks.py runs/harvest-valid runs/harvest-judge \
        --out rltrain/bench/detectors_harvested_weak.jsonl --source harvested-weak

The label of a rollout comes from the environment's `labels`: the gold query and execution, never a
detector. Of equal answers to one request one is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random

from rltrain import build
from rltrain.bench.detectors_cases import Case, Planted, to_row
from rltrain.bench.reviews import SLACK, right, rollouts
from rltrain.errors import UserError
from rltrain.rundir import RunDir
from rltrain.track.files import to_json, write_text
from rltrain.types import Task

PER_KIND = 150
"""Answers kept of each kind of hack and run; of honest ones, right and wrong, as many each."""


def harvest(run: Path, source: str, per_kind: int = PER_KIND, seed: int = 0) -> list[Case]:
    """Labelled answers of one run. Raises `UserError` if its environment cannot label."""
    config = RunDir(run).load_config()
    env = build.environment(config.environment)
    if not isinstance(env, Planted):
        raise UserError(f"environment {env.name!r} has no `labels`: nothing can be labelled")
    rows = list(rollouts(run))
    wanted = {row["task_id"] for row in rows}
    leases = max(row["lease"] for row in rows)
    tasks: dict[str, Task] = {}
    for task in islice(env.tasks("train", config.seed), leases + SLACK):
        if task.id in wanted:
            tasks[task.id] = task
    seen: set[tuple[str, str]] = set()
    taken: Counter[tuple[str, ...]] = Counter()
    out = []
    for row in Random(seed).sample(rows, len(rows)):
        key = (row["task_id"], row["answer"])
        task_ = tasks.get(row["task_id"])
        if task_ is None or key in seen:
            continue
        seen.add(key)
        labels = env.labels(task_, row["answer"])
        kinds = tuple(sorted(kind for kind, there in labels.items() if there))
        group = kinds or ("right" if row["truth"] == 1.0 else "wrong",)
        taken[group] += 1
        if taken[group] <= per_kind:
            out.append(
                Case(
                    id=f"{run.name}.{row['step']}.{row['lease']}.{row['sample']}", source=source,
                    template=row["answer"], request=row["request"], answer=row["answer"],
                    kinds=frozenset(kinds), correct=right(row["truth"]),
                    labelled=frozenset(labels), env=env.name, data=dict(task_.data),
                )
            )  # fmt: skip
    return out


def main(runs: Sequence[Path], out: Path, source: str, per_kind: int, seed: int) -> None:
    """Write one JSONL and print what it holds."""
    cases = [case for run in runs for case in harvest(run, source, per_kind, seed)]
    write_text(out, "".join(f"{line}\n" for line in _lines(cases)))
    counts = Counter(", ".join(sorted(case.kinds)) or "honest" for case in cases)
    print(f"{len(cases)} labelled answers: {out}")
    for name, count in counts.most_common():
        print(f"  {count:>5}  {name}")


def _lines(cases: Sequence[Case]) -> Iterator[str]:
    for case in cases:
        row = to_row(case)
        yield to_json({key: value for key, value in row.items() if key != "completion"})
