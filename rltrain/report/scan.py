"""One pass over every recorded rollout: who was flagged, whom the judge believed, what adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from rltrain.track.rollouts import read_table

TRUE_AT = 1.0
"""An answer is exact if its truth reaches this."""


@dataclass(slots=True, kw_only=True)
class Scan:
    """Totals over rollouts/*.parquet, filled file by file."""

    rollouts: int = 0
    trained: int = 0
    """Rollouts that no detector dropped: the ones that the ledger calls consumed."""
    leases: int = 0
    repeated: int = 0
    """Leases that appear in more than one step: something was trained on twice."""
    per_step: dict[int, int] = field(default_factory=dict)
    """Rollouts recorded, by step."""
    actions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Flags by (detector, action)."""
    hacks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Flagged rows by detector, those kept for showing; steps ascending."""
    judged: list[np.ndarray] = field(default_factory=list)
    """Per lease whose rollouts reached the judge: 2x2 table of judge against truth."""
    damaged: list[str] = field(default_factory=list)

    @property
    def confusion(self) -> np.ndarray | None:
        """[both yes, judge only, truth only, both no], or None if nothing can be compared."""
        return np.sum(self.judged, axis=0) if self.judged else None

    @property
    def judged_array(self) -> np.ndarray:
        """[leases, 4], for intervals that resample leases."""
        return np.stack(self.judged)

    @property
    def flags(self) -> Counter[str]:
        """Flagged rollouts by detector."""
        totals: Counter[str] = Counter()
        for (detector, _), count in self.actions.items():
            totals[detector] += count
        return totals


def scan(run_dir: Path, *, judge_gate: str = "judge", keep: int = 200) -> Scan:
    """Read every step file. keep: flagged rows held per detector, half early, half late.

    A damaged file is named in `damaged`, never skipped in silence."""
    found = Scan()
    leases: set[int] = set()
    for path in sorted((run_dir / "rollouts").glob("step-*.parquet")):
        try:
            table = read_table(path)
        except (OSError, pa.ArrowException) as error:
            found.damaged.append(f"{path.name}: {(str(error).splitlines() or [''])[0]}")
            continue
        if table.num_rows:
            _add(found, table, leases, judge_gate)
            _hacks(found, table, keep)
    found.leases = len(leases)
    return found


def _add(found: Scan, table: pa.Table, leases: set[int], judge_gate: str) -> None:
    step = table["step"][0].as_py()
    found.rollouts += table.num_rows
    found.per_step[step] = table.num_rows
    mine = set(table["lease"].to_pylist())
    found.repeated += len(leases & mine)
    leases |= mine
    found.trained += sum(
        all(flag["action"] != "drop" for flag in flags) for flags in table["flags"].to_pylist()
    )
    columns = zip(
        table["lease"].to_pylist(), table["truth"].to_pylist(), table["gates"].to_pylist(),
        strict=True,
    )
    tables: dict[int, np.ndarray] = {}
    for lease, truth, gates in columns:
        said = next((gate["passed"] for gate in gates if gate["gate"] == judge_gate), None)
        if said is not None and truth is not None:
            cell = confusion_cell(said, truth >= TRUE_AT)
            tables.setdefault(lease, np.zeros(4))[cell] += 1
    found.judged.extend(tables.values())


def confusion_cell(first: bool, second: bool) -> int:
    """Place in the 2x2 table that `stats.kappa` takes."""
    return (0 if second else 1) if first else (2 if second else 3)


def _hacks(found: Scan, table: pa.Table, keep: int) -> None:
    flagged = table.filter(pc.greater(pc.list_value_length(table["flags"]), 0)).to_pylist()
    for row in flagged:
        for flag in row["flags"]:
            found.actions[flag["detector"], flag["action"]] += 1
            kept = found.hacks.setdefault(flag["detector"], [])
            kept.append(_example(row, flag))
            if len(kept) > keep:  # the early half stays, the late half moves on
                del kept[keep // 2]


def _example(row: Mapping[str, Any], flag: Mapping[str, str]) -> dict[str, Any]:
    names = ("step", "lease", "sample", "task_id", "request", "answer", "gold", "truth")
    return {name: row[name] for name in names} | {
        "reward": row["reward"],
        "judged_reward": row["judged_reward"],
        "evidence": flag["evidence"],
        "action": flag["action"],
    }


def pick_hacks(rows: list[dict[str, Any]], k: int) -> list[dict[str, Any]]:
    """Up to k examples, steps ascending: the earliest and the latest different answers.

    An answer is shown twice at most, when it is among the first and still among the last."""
    first = {row["answer"]: row for row in reversed(rows)}
    last = {row["answer"]: row for row in rows}
    early = sorted(first.values(), key=_place)[: (k + 1) // 2]
    shown = {_place(row) for row in early}
    late = [row for row in sorted(last.values(), key=_place) if _place(row) not in shown]
    late = late[max(0, len(late) - k // 2):]
    return [row | {"when": "early"} for row in early] + [row | {"when": "late"} for row in late]


def _place(row: dict[str, Any]) -> tuple[int, int, int]:
    return row["step"], row["lease"], row["sample"]
