"""`rltrain report RUN`: write report.html and summary.json of a run again."""

from __future__ import annotations

import argparse
from pathlib import Path

from rltrain.report import write_report, write_summary
from rltrain.rundir import RunDir


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="rltrain report", description="Write report.html and summary.json of a run again."
    )
    parser.add_argument("run", type=Path, help="run directory, such as runs/segments_cpu")
    options = parser.parse_args(args)
    RunDir(options.run).load_config()  # refuses what is not a run
    write_summary(options.run)
    print(write_report(options.run))
