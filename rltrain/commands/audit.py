"""`rltrain audit RUN`: check from the disk alone that nothing was lost, doubled or damaged."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rltrain.errors import UserError
from rltrain.report.audit import audit
from rltrain.track.files import to_json

UNSOUND = 3


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="rltrain audit",
        description="Check a finished, stopped or running run from its files alone: every rollout "
        "accounted for, none consumed twice, no task skipped, steps and checkpoints whole. Prints "
        "JSON. Exit code 0 if all holds, 3 if not (`problems` says what), 2 for what is no run.",
    )
    parser.add_argument("run", type=Path, help="run directory, such as runs/segments_cpu")
    parser.add_argument(
        "--quick", action="store_true", help="do not read checkpoints in full, only look for them"
    )
    options = parser.parse_args(args)
    run: Path = options.run
    # Not `load_config`: a run with a damaged config is what an audit is for.
    if not (run / "config.yaml").exists() and not (run / "ledger.sqlite").exists():
        raise UserError(f"{run} is not a run directory: it has no config.yaml and no ledger.sqlite")
    found = audit(run, hashed=not options.quick)
    print(to_json(found, indent=2))
    sys.stdout.flush()
    if not found["sound"]:
        sys.exit(UNSOUND)
