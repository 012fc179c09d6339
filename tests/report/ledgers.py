"""A small run directory with a ledger, step files, metrics and a checkpoint that all agree."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import yaml

from rltrain.rollout.ledger import Ledger
from rltrain.track import JsonlTracker, rollouts_path, write_fact, write_rollouts
from rltrain.types import Group
from tests.makers import make_group

SIBLINGS, GROUPS = 4, 2


def write_sound_run(run: Path, *, steps: int = 3, planned: int = 3) -> Path:
    """steps of planned are done. Sibling 3 of every group is lost to the engine, sibling 2 of every
    other group is dropped by a detector; the first lease was given out twice."""
    run.mkdir(parents=True)
    config = {"max_steps": planned, "rollout": {"max_lag": 1}, "name": run.name}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    ledger = Ledger(run / "ledger.sqlite")
    tracker = JsonlTracker(run / "metrics.jsonl")
    for step in range(1, steps + 1):
        groups = [_group(lease, step) for lease in range((step - 1) * GROUPS, step * GROUPS)]
        for group in groups:
            _enter(ledger, group, step)
        write_rollouts(rollouts_path(run, step), groups, step=step, version=step - 1)
        tracker.log(step, {"loss": 0.5})
    ledger.close()
    tracker.close()
    change(
        run,
        "UPDATE leases SET attempts = 3 WHERE lease = 0",
        "INSERT INTO resumes (at, step, rewound, pending) VALUES (1700000000.5, 1, 2, 1)",
    )
    write_checkpoint(run / "checkpoints" / f"step-{steps:05d}", steps)
    if steps == planned:
        leased = steps * GROUPS
        write_fact(run, "ledger", {
            "issued": leased * SIBLINGS, "consumed": leased * 3 - leased // 2, "in_flight": 0,
            "dropped": {"detector:opt_out": leased // 2, "fault:engine": leased},
        })  # fmt: skip
    return run


def _group(lease: int, step: int) -> Group:
    return make_group([1.0, 0.0, 0.5, 0.0], lease=lease, lost=(3,), version=step - 1,
                      dropped=(2,) if lease % 2 else ())  # fmt: skip


def _enter(ledger: Ledger, group: Group, step: int) -> None:
    """As the dispatcher does: leased, received, settled."""
    ledger.lease(group.lease, group.task.id, SIBLINGS, step - 1, "worker-0")
    assert ledger.receive(group)
    fates = {fault.sample: f"fault:{fault.kind}" for fault in group.faults}
    for member in group.members:
        fate = "detector:opt_out" if member.dropped else "consumed"
        fates[member.judged.episode.sample] = fate
    ledger.settle(group.lease, step=step, fates=fates)


def write_checkpoint(folder: Path, step: int) -> Path:
    (folder / "policy").mkdir(parents=True)
    weights = folder / "policy" / "model.safetensors"
    weights.write_bytes(b"weights")
    sums = {"policy/model.safetensors": hashlib.sha256(b"weights").hexdigest()}
    (folder / "COMPLETE.json").write_text(json.dumps({"step": step, "sha256": sums}))
    return folder


def change(run: Path, *statements: str) -> None:
    """Tamper with the ledger."""
    with closing(sqlite3.connect(run / "ledger.sqlite", isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def append_metrics(run: Path, line: str) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(line)
