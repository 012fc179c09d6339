"""`rltrain pairs RUN`: preference pairs, or answers to imitate, from a run's stored rollouts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from rltrain.config.offline import SelectConfig
from rltrain.errors import UserError
from rltrain.launch.offline_data import select_from
from rltrain.offline.rows import write_rows


def main(args: list[str]) -> None:
    options = _parser().parse_args(args)
    try:
        select = SelectConfig(
            min_margin=options.min_margin,
            min_reward=options.min_reward,
            max_per_group=options.max_per_group,
            flagged=options.allow_flagged,
            max_version=options.max_version,
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise UserError(f"--{name}: {first['msg']} (given: {first['input']!r})") from error
    method = "sft" if options.sft else "dpo"
    found = select_from(options.run, method, select, options.seed)
    write_rows(options.out, found.rows)
    _print(found.facts(), "answers" if options.sft else "pairs", options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rltrain pairs",
        description="Select preference pairs from the rollouts that a run stored, as JSON lines in "
        "TRL's conversational format: within a group, the chosen answer has the higher reward, or "
        "the same reward and passed more gates. Train on them with `rltrain train algo=dpo "
        "algo.data=FILE` or `algo=reward_model`.",
        epilog="example: rltrain pairs runs/segments_cpu --out pairs.jsonl --min-margin 0.5",
    )
    default = SelectConfig()
    parser.add_argument("run", type=Path, help="run directory, such as runs/segments_cpu")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--sft", action="store_true", help="answers to imitate instead of pairs, for algo=sft"
    )
    parser.add_argument(
        "--min-margin", type=float, default=default.min_margin, help="least difference of rewards"
    )
    parser.add_argument(
        "--min-reward",
        type=float,
        default=default.min_reward,
        help="with --sft: least reward of an answer (default: %(default)s)",
    )
    parser.add_argument(
        "--max-per-group",
        type=int,
        default=default.max_per_group,
        help="pairs from one group, drawn at random, or answers, the best first (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--allow-flagged",
        action="store_true",
        help="let an answer that a detector flagged be chosen; it may always be rejected",
    )
    parser.add_argument(
        "--max-version", type=int, help="only rollouts of policy versions up to this one"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    return parser


def _print(facts: dict[str, Any], what: str, out: Path) -> None:
    console = Console()
    line = (
        f"{facts['rows']:,} {what} from {facts['groups_used']:,} of {facts['groups']:,} groups "
        f"({facts['rollouts']:,} rollouts): {out}"
    )
    console.print(line, highlight=False, soft_wrap=True)
    left_out = [("rollouts", "dropped_rollouts"), (what, "dropped")]
    table = Table("left out", "why", "count")
    for kind, key in left_out:
        for reason, count in facts[key].items():
            table.add_row(kind, reason, f"{count:,}")
    if table.row_count:
        console.print(table)
