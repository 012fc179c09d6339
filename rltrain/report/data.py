"""A run directory as read: whatever is there, and a sentence for whatever is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped,unused-ignore]

from rltrain.errors import UserError
from rltrain.track.facts import PARTS, read_fact
from rltrain.track.jsonl import Row, read_jsonl, read_metrics
from rltrain.track.redact import redact
from rltrain.track.rollouts import eval_path, read_rollouts

WINDOW_SHARE = 0.1
"""`first` and `last` are means over this share of the steps, and over one step at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything that a report is made of, apart from the rollouts, which are scanned by file."""

    path: Path
    config: dict[str, Any]
    """Redacted; empty if config.yaml is missing."""
    rows: tuple[Row, ...]
    facts: Mapping[str, dict[str, Any]]
    """By part; a missing part is an empty dict."""
    events: Sequence[dict[str, Any]]
    before: Sequence[dict[str, Any]]
    after: Sequence[dict[str, Any]]
    """Held-out rollouts; empty if the evaluation never ended."""
    problems: Sequence[str] = field(default=())
    """What is missing or damaged, in words."""

    @property
    def name(self) -> str:
        return str(self.facts["run"].get("name") or self.config.get("name") or self.path.name)

    @property
    def seed(self) -> int | None:
        seed = self.facts["run"].get("seed", self.config.get("seed"))
        return int(seed) if isinstance(seed, int | float) else None

    @property
    def planned(self) -> int | None:
        """Steps that were asked for."""
        steps = self.config.get("max_steps")
        return int(steps) if isinstance(steps, int | float) else None

    @property
    def window(self) -> int:
        """Steps in the first and in the last window; 0 without any step."""
        return max(1, round(len(self.rows) * WINDOW_SHARE)) if self.rows else 0

    def mean(self, name: str, rows: Sequence[Row], absent: float | None = None) -> float | None:
        """Mean of a metric over the rows that measured it. absent: the value of a missing key."""
        values = [row[name] for row in rows if name in row]
        if absent is not None:
            values += [absent] * (len(rows) - len(values))
        return sum(values) / len(values) if values else None

    def ends(self, name: str, absent: float | None = None) -> dict[str, float | None]:
        """`first` and `last`: the metric's mean over the two windows."""
        size = self.window
        return {
            "first": self.mean(name, self.rows[:size], absent),
            "last": self.mean(name, self.rows[len(self.rows) - size:], absent),
        }

    def names(self, prefix: str, suffix: str = "") -> list[str]:
        """The middles of all metric names of a group, in order of first appearance."""
        seen: dict[str, None] = {}
        for row in self.rows:
            for name in row:
                if name.startswith(prefix) and name.endswith(suffix):
                    seen[name[len(prefix): len(name) - len(suffix)]] = None
        return list(seen)

    @property
    def gates(self) -> list[str]:
        """Gate names in the order of the config, or by how many rollouts reached them."""
        found = self.names("gate/", "/pass")
        stages = (self.config.get("rewards") or {}).get("stages") or ()
        order = [stage.get("check") for stage in stages if isinstance(stage, Mapping)]
        reached = {gate: self.mean(f"gate/{gate}/reached", self.rows, 0.0) or 0.0 for gate in found}
        known = {gate: place for place, gate in enumerate(order)}
        return sorted(found, key=lambda gate: (known.get(gate, len(order)), -reached[gate]))

    @property
    def detectors(self) -> list[str]:
        """Every detector that was configured or that found something."""
        configured = (self.config.get("detectors") or {}).get("rollout") or {}
        found = [name for name in self.names("flag/") if name != "any"]
        return sorted({*configured, *found})

    @property
    def alarms(self) -> dict[str, dict[str, int]]:
        """Per alarm that was ever raised: in how many steps, and in which first and last."""
        raised: dict[str, list[int]] = {}
        for row in self.rows:
            for name, value in row.items():
                if name.startswith("alarm/") and value > 0:
                    raised.setdefault(name.removeprefix("alarm/"), []).append(int(row["step"]))
        return {
            name: {"steps": len(steps), "first": steps[0], "last": steps[-1]}
            for name, steps in raised.items()
        }


def load(run_dir: Path) -> Run:
    """Read a run directory. Raises `UserError` if there is none; anything less is a problem."""
    if not run_dir.is_dir():
        raise UserError(f"there is no run directory {run_dir}")
    problems: list[str] = []
    config = _config(run_dir / "config.yaml", problems)
    rows = _rows(run_dir / "metrics.jsonl", problems)
    facts = {part: _fact(run_dir, part, _optional(part, config), problems) for part in PARTS}
    events, torn = read_jsonl(run_dir / "events.jsonl")
    if torn:
        problems.append(f"events.jsonl has {torn} torn line(s)")
    before, after = (
        _eval(run_dir, when, problems, _optional(f"eval_{when}", config))
        for when in ("before", "after")
    )
    run = Run(
        path=run_dir, config=config, rows=rows, facts=facts, events=events,
        before=before, after=after, problems=problems,
    )
    if run.planned is not None and len(rows) < run.planned:
        problems.append(f"only {len(rows)} of {run.planned} steps were logged")
    return run


def _optional(part: str, config: Mapping[str, Any]) -> bool:
    """Whether a run of this config has no such part even when it is whole."""
    method = (config.get("algo") or {}).get("method", "online")
    if part == "precision":
        return True
    if part in ("data", "offline"):
        return bool(method == "online")
    if method != "online" and part in ("ledger", "judge"):
        return True
    if method == "reward_model" and part in ("engine", "eval_before", "eval_after"):
        return True
    stages = (config.get("rewards") or {}).get("stages") or ()
    return part == "judge" and bool(config) and all(
        stage.get("check") not in ("judge", "judge_pairwise")
        for stage in stages
        if isinstance(stage, Mapping)
    )


def _config(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append("config.yaml is missing")
        return {}
    except (ValueError, yaml.YAMLError) as error:
        problems.append(f"config.yaml cannot be read: {str(error).splitlines()[0]}")
        return {}
    return redact(config) if isinstance(config, dict) else {}


def _rows(path: Path, problems: list[str]) -> tuple[Row, ...]:
    metrics = read_metrics(path)
    if not metrics.rows:
        problems.append("metrics.jsonl has no step: training never got through one")
    if metrics.torn:
        problems.append(f"metrics.jsonl has {metrics.torn} torn line(s), left out here")
    if metrics.superseded:
        problems.append(
            f"{metrics.superseded} step(s) were done again after a restart; the later ones count"
        )
    return metrics.rows


def _fact(
    run_dir: Path, part: str, optional: bool, problems: list[str]
) -> dict[str, Any]:
    try:
        values = read_fact(run_dir, part)
    except ValueError as error:
        problems.append(str(error))
        return {}
    if values is None and not optional:
        problems.append(f"facts/{part}.json is missing: the run ended before it was written")
    return values or {}


def _eval(run_dir: Path, when: str, problems: list[str], optional: bool) -> list[dict[str, Any]]:
    path = eval_path(run_dir, when)
    try:
        return read_rollouts(path)
    except FileNotFoundError:
        if not optional:
            text = f"eval/{when}.parquet is missing: there is no evaluation {when} training"
            problems.append(text)
    except (OSError, pa.ArrowException) as error:
        problems.append(f"eval/{when}.parquet cannot be read: {str(error).splitlines()[0]}")
    return []
