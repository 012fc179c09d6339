"""`rltrain promote`: a run's policy into service, if its evaluation allows it."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path

from rltrain.launch.registry import Bar, Registry
from rltrain.rundir import RunDir


def main(args: list[str]) -> None:
    bar = Bar()
    parser = argparse.ArgumentParser(
        prog="rltrain promote",
        description="Take the policy of a finished run into a registry as the version in service. "
        "Refused (exit code 2, and logged) unless its held-out evaluation is non-inferior to the "
        "version in service, or to its own start if there is none, and hacks did not become more "
        "frequent, both by a paired 95 %% bootstrap interval. See docs/serving.md.",
        epilog="example: rltrain promote runs/segments_cpu segments --note 'first one'",
    )
    parser.add_argument("run", type=Path, help="run directory, such as runs/segments_cpu")
    parser.add_argument("name", help="what is served under this name, such as segments")
    add_registry(parser)
    parser.add_argument(
        "--margin", type=float, default=bar.margin,
        help="loss of exact match that the interval may reach (default %(default)s)",
    )
    parser.add_argument(
        "--hack-margin", type=float, default=bar.hack_margin,
        help="rise of the hack rate that the interval may reach (default %(default)s)",
    )
    options = parser.parse_args(args)
    wanted = Bar(margin=options.margin, hack_margin=options.hack_margin)
    registry = Registry(options.registry, options.name)
    done = registry.promote(RunDir(options.run.resolve()), wanted, by=user(), note=options.note)
    exact, hacks = done["evidence"]["delta"], done["evidence"]["hack_delta"]
    print(
        f"{options.name}: version {done['version']} is in service (exact match "
        f"{100 * exact['mean']:+.1f} points, hacks {100 * hacks['mean']:+.1f}, n {exact['n']})"
    )


def add_registry(parser: argparse.ArgumentParser) -> None:
    """Options that promote and rollback share."""
    parser.add_argument(
        "--registry", type=Path, default=Path("registry"), help="folder (default %(default)s)"
    )
    parser.add_argument("--note", default="", help="kept with the decision")


def user() -> str:
    """Who decides, for the log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user id
        return "unknown"
