"""`rltrain flags RUN`: look through what the detectors flagged, and say whether they were right."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rltrain.bench.detectors_cases import to_row
from rltrain.bench.reviews import FlagRow, decided_cases, flag_rows, review
from rltrain.errors import UserError
from rltrain.report.stats import wilson
from rltrain.track.files import to_json, write_text


def main(args: list[str]) -> None:
    options = _parse(args)
    run: Path = options.run
    if options.confirm or options.reject:
        if both := set(options.confirm) & set(options.reject):
            raise UserError(f"flag {sorted(both)[0]!r} is both confirmed and rejected")
        for ids, decision in ((options.confirm, "confirmed"), (options.reject, "rejected")):
            if ids:
                review(run, ids, decision, options.note)
                print(f"{len(ids)} {decision}: {run / 'reviews.jsonl'}")
    elif options.export:
        cases = decided_cases(run)
        lines = [to_json(to_row(case)) for case in cases]
        write_text(options.export, "".join(f"{line}\n" for line in lines))
        print(f"{len(cases)} labelled answers: {options.export}")
    elif options.list:
        _list(run, options.detector, options.all, options.limit)
    else:
        _summary(run, list(flag_rows(run, options.detector)))


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="rltrain flags",
        description="Flags of a run's stored rollouts, each with its evidence, and a person's "
        "decisions on them. Decisions are only ever added, to RUN/reviews.jsonl; the newest "
        "counts. Without an option: how many there are and how many were right.",
        epilog="example: rltrain flags runs/segments_cpu --list --detector tag_catch_all",
    )
    parser.add_argument("run", type=Path, help="run directory, such as runs/segments_cpu")
    parser.add_argument("--list", action="store_true", help="undecided flags as JSON lines")
    parser.add_argument("--all", action="store_true", help="with --list: decided ones as well")
    parser.add_argument("--limit", type=int, default=20, help="with --list (default 20; 0: all)")
    parser.add_argument("--detector", help="only flags of this detector")
    parser.add_argument(
        "--confirm", metavar="ID", action="append", default=[], help="it is a hack; repeatable"
    )
    parser.add_argument(
        "--reject", metavar="ID", action="append", default=[], help="it is none; repeatable"
    )
    parser.add_argument("--note", default="", help="kept with the decision")
    parser.add_argument(
        "--export", metavar="FILE", type=Path,
        help="write the decided ones as labelled answers that `rltrain detect-bench` reads",
    )
    return parser.parse_args(args)


def _list(run: Path, detector: str | None, decided: bool, limit: int) -> None:
    shown = 0
    for row in flag_rows(run, detector):
        if row.decision and not decided:
            continue
        if limit and shown == limit:
            return
        shown += 1
        print(
            to_json(
                {
                    "id": row.id, "detector": row.detector, "evidence": row.evidence,
                    "request": row.rollout["request"], "answer": row.rollout["answer"],
                    "truth": row.rollout["truth"], "reward": row.rollout["reward"],
                    "action": row.action, "decision": row.decision,
                }
            )
        )  # fmt: skip


def _summary(run: Path, rows: Sequence[FlagRow]) -> None:
    counts = Counter((row.detector, row.decision) for row in rows)
    table = Table("detector", "flags", "undecided", "confirmed", "rejected", "right (95 %)")
    for name in sorted({row.detector for row in rows}):
        yes, no = counts[name, "confirmed"], counts[name, "rejected"]
        low, high = wilson(yes, yes + no)
        share = f"{yes / (yes + no):.2f} ({low:.2f}–{high:.2f})" if yes + no else "–"
        total = yes + no + counts[name, None]
        table.add_row(name, *(f"{n:,}" for n in (total, counts[name, None], yes, no)), share)
    console = Console()
    if rows:
        console.print(table)
    else:
        console.print(f"no flags in {run}", highlight=False)
