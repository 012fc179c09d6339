"""Does a run hold together? Read again from the disk alone, whatever the run said about itself.

    metrics.jsonl -> rollouts/*.parquet -> ledger.sqlite, checkpoints/ -> sentences

Read in the reverse of the order in which a step is written, so that a run may be audited while it
goes on: what the metrics name is in the files, and what the files hold is in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped,unused-ignore]

from rltrain.report.audit_files import (
    Logged,
    StepFiles,
    differences,
    read_checkpoints,
    read_logged,
    read_step_files,
)
from rltrain.report.audit_ledger import Book, read_book
from rltrain.report.audit_lengths import length_bias
from rltrain.track.facts import read_fact

MOST = 20
"""Sentences of one kind that are told; the others are counted."""
ALIVE_S = 10.0
"""A heartbeat younger than this means that the run goes on."""


def audit(run_dir: Path, *, hashed: bool = True) -> dict[str, Any]:
    """Everything that was checked, with `problems` as sentences and `sound` if there are none.

    hashed: read checkpoints in full; else only look for their files (quick). Never raises for what
    lies in the folder; that is a problem, and told."""
    problems: list[str] = []
    config = _config(run_dir, problems)
    logged = read_logged(run_dir / "metrics.jsonl")
    files = read_step_files(run_dir)
    ledger = run_dir / "ledger.sqlite"
    book, unreadable = (None, []) if _leases_nothing(config, ledger) else read_book(ledger)
    problems += [*_of_metrics(logged), *_of_files(files), *unreadable]
    checkpoints = read_checkpoints(run_dir, hashed=hashed)
    problems += [f"checkpoints: {entry['wrong']}" for entry in checkpoints if not entry["whole"]]
    planned = config.get("max_steps")
    state = _state(run_dir, logged.last, planned)
    if book is not None:
        problems += _of_ledger(book, config, state == "finished")
        told = list(differences(book.stored, files.steps, logged.last))
        problems += told[:MOST]
        if len(told) > MOST:
            problems.append(f"{len(told) - MOST} more steps differ between ledger and files")
        problems += _against_fact(run_dir, book) if state == "finished" else []
    return {
        "run": str(run_dir),
        "state": state,
        "steps": {"logged": logged.last, "planned": planned},
        **_counts(book),
        "duplicates": {
            "positions": book.repeated if book else None,
            "groups_in_two_files": files.across,
            "rollouts_twice_in_a_file": files.within,
        },
        "rollouts": {"files": len(files.steps), "rows": files.rows},
        "metrics": asdict(logged),
        "checkpoints": checkpoints,
        "lengths": length_bias(book.lengths) if book else None,
        "problems": problems,
        "sound": not problems,
    }


def _leases_nothing(config: dict[str, Any], ledger: Path) -> bool:
    """An offline method learns from stored answers, a replay from another run's rollouts."""
    if ledger.exists():
        return False
    offline = (config.get("algo") or {}).get("method", "online") != "online"
    return offline or bool((config.get("rollout") or {}).get("replay"))


def _counts(book: Book | None) -> dict[str, Any]:
    if book is None:
        names = ("issued", "consumed", "dropped", "in_flight", "adds_up", "skipped_positions",
                 "re_leased", "resumes", "largest_lag")  # fmt: skip
        return dict.fromkeys(names)
    return {
        "issued": book.issued,
        "consumed": book.consumed,
        "dropped": dict(sorted(book.dropped.items())),
        "in_flight": book.in_flight,
        "adds_up": book.adds_up,
        "skipped_positions": book.skipped,
        "re_leased": {"leases": book.released, "times": book.attempts},
        "resumes": book.resumes,
        "largest_lag": book.lag,
    }


def _config(run_dir: Path, problems: list[str]) -> dict[str, Any]:
    try:
        config = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"config.yaml cannot be read: {str(error).splitlines()[0]}")
        return {}
    if not isinstance(config, dict):
        problems.append("config.yaml holds no settings")
        return {}
    return config


def _state(run_dir: Path, last: int, planned: Any) -> str:
    """`finished`, `running` or `unfinished` (stopped, crashed, or between two starts)."""
    if isinstance(planned, int) and last >= planned:
        return "finished"
    beats = [path.stat().st_mtime for path in (run_dir / "heartbeats").glob("*")]
    return "running" if time.time() - max(beats, default=0.0) < ALIVE_S else "unfinished"


def _of_metrics(logged: Logged) -> Iterator[str]:
    if logged.missing:
        yield (
            f"metrics.jsonl lacks {len(logged.missing)} of the steps 1 to {logged.last} "
            f"(first: {logged.missing[0]})"
        )
    if logged.repeated:
        yield (
            f"metrics.jsonl holds {len(logged.repeated)} step(s) more than once "
            f"(first: {logged.repeated[0]})"
        )


def _of_files(files: StepFiles) -> Iterator[str]:
    yield from files.damaged
    if files.across:
        yield f"{files.across} group(s) lie in more than one step file: they were trained on twice"
    if files.within:
        yield f"{files.within} rollout(s) lie more than once in one step file"


def _of_ledger(book: Book, config: dict[str, Any], finished: bool) -> Iterator[str]:
    yield from book.problems
    if not book.adds_up:
        yield (
            f"the ledger does not add up: {book.issued} issued, but {book.consumed} consumed + "
            f"{sum(book.dropped.values())} dropped + {book.in_flight} in flight"
        )
    if book.skipped:
        yield f"{book.skipped} position(s) of the task stream were skipped"
    if book.repeated:
        yield f"{book.repeated} position(s) of the task stream were leased under two numbers"
    bound = (config.get("rollout") or {}).get("max_lag")
    if book.lag is not None and isinstance(bound, int) and book.lag > bound:
        yield f"a group was trained on {book.lag} versions late, more than rollout.max_lag={bound}"
    if finished and book.in_flight:
        yield f"the run took its last step, but {book.in_flight} rollout(s) are still in flight"


def _against_fact(run_dir: Path, book: Book) -> Iterator[str]:
    """The totals that the run wrote down at its end are those of its ledger."""
    try:
        fact = read_fact(run_dir, "ledger")
    except ValueError as error:
        yield str(error)
        return
    for name in ("issued", "consumed", "in_flight", "dropped"):
        if fact is not None and fact.get(name) != getattr(book, name):
            yield (
                f"facts/ledger.json says {name} = {fact.get(name)}, the ledger itself "
                f"{getattr(book, name)}"
            )
