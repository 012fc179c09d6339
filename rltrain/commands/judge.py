"""`rltrain judge calibrate`: how far a judge can be trusted, before it rewards anything."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rltrain import build
from rltrain.bench import calibration, calibration_run, calibration_set
from rltrain.config import RunConfig
from rltrain.config.compose import load_config
from rltrain.errors import UserError
from rltrain.launch.calibrations import judge_identity, keep
from rltrain.launch.judge_server import judge_endpoint
from rltrain.protocols import Environment
from rltrain.report.calibration import rows_of, write_calibration
from rltrain.rundir import RunDir
from rltrain.warmup.cache import content_key

UNMET = 1
ERRORS = "0.07,0.085,0.1"
"""Of the synthetic raters: their kappa with one another is about 0.69, as people's often is."""


HELP = """rltrain judge: measure the judge of a config.

usage: rltrain judge calibrate [options] [key=value ...]

  calibrate  agreement with raters and with executed truth, and whether it may reward

Then:  rltrain judge calibrate --help
"""


def main(args: list[str]) -> None:
    if args and args[0] in ("-h", "--help"):
        print(HELP)
        return
    if not args or args[0] != "calibrate":
        raise UserError("rltrain judge needs to be told what to do; there is: calibrate")
    _calibrate(_parse(args[1:]))


def _calibrate(options: argparse.Namespace) -> None:
    config = _config(options)
    env = build.environment(config.environment)
    plan = _plan(options, config, env)

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    with judge_endpoint(config, say) as endpoint:
        say(f"asking the judge about {len(plan.truth.items)} answers")
        found = asyncio.run(calibration.measure(config, env, plan, endpoint))
    require = config.rewards.judge.require
    unmet = require.unmet(found["measures"])
    asked = require.model_dump(mode="json", exclude_none=True) if require.asks else None
    identity = judge_identity(config, env)
    found = {"judge": identity, "judge_key": content_key(identity), "required": asked,
             "unmet": unmet, **found}  # fmt: skip
    source = {k: found["ground_truth"][k] for k in ("source", "synthetic", "digest", "n")}
    found["record"] = str(
        keep(config, identity, {"measures": found["measures"], "ground_truth": source})
    )
    page = write_calibration(_out(options, config), found)
    _show(found, page)
    if unmet:
        print(f"not released: {'; '.join(unmet)}", file=sys.stderr)
        sys.exit(UNMET)


def _parse(args: list[str]) -> argparse.Namespace:
    part = argparse.ArgumentParser(
        prog="rltrain judge calibrate",
        description="Ask a judge about a ground-truth set and measure its agreement: kappa, "
        "correlations, the raters' own ceiling, the alternative annotator test, master keys, both "
        "orders of pairs. Writes calibration.json and calibration.html, and keeps a record that "
        "`rltrain train` looks for where rewards.judge.require is set. Exit code 0 if the judge "
        "meets it, 1 if not. Without --labels the raters are synthetic: noisy copies of executed "
        "truth.",
        epilog="example: rltrain judge calibrate experiment=segments_cpu rewards=judged",
    )
    part.add_argument("overrides", nargs="*", help="config, such as rewards.judge.endpoint=…")
    part.add_argument(
        "--labels", type=Path, metavar="FILE",
        help="JSONL: id of a task (or request), answer, ratings {rater: verdict}",
    )
    part.add_argument(
        "--adjudications", type=Path, metavar="FILE",
        help="JSONL: item (as the report names it), label; overrides the raters' majority",
    )
    part.add_argument("--run", type=Path, help="a finished run: its rollouts, and drift from them")
    part.add_argument("--count", type=int, help="pairs (default: rewards.judge.calibrate)")
    part.add_argument("--split", help="of the tasks without --labels (default: eval.split)")
    part.add_argument(
        "--rater-errors", default=ERRORS, metavar="A,B,C",
        help="how often each synthetic rater is wrong (default %(default)s)",
    )
    part.add_argument("--seed", type=int, default=2, help="of pairs, raters and intervals")
    part.add_argument(
        "--probes", type=int, default=20, help="tasks per master key (default %(default)s; 0: none)"
    )
    part.add_argument("--out", type=Path, help="folder for calibration.json and calibration.html")
    return part.parse_intermixed_args(args)


def _config(options: argparse.Namespace) -> RunConfig:
    if options.overrides or options.run is None:
        return load_config(options.overrides or ["experiment=segments_cpu", "rewards=judged"])
    return RunDir(options.run.resolve()).load_config()


def _plan(options: argparse.Namespace, config: RunConfig, env: Environment) -> calibration.Plan:
    words = config.rewards.judge.verdicts
    count = config.rewards.judge.calibrate if options.count is None else options.count
    if count < 1 or options.probes < 0:
        raise UserError("--count must be at least 1, and --probes at least 0")
    if options.labels:
        truth = calibration_set.from_file(options.labels, env, words)
    else:
        split = options.split or config.eval.split
        errors = _errors(options.rater_errors)
        truth = calibration_set.from_environment(
            env, count, split, seed=options.seed, errors=errors
        )
        print(f"synthetic raters, wrong at random in {errors} of cases, seed {options.seed}",
              file=sys.stderr)  # fmt: skip
    if options.adjudications:
        settled = calibration_set.adjudications(options.adjudications, truth, words)
        truth = replace(truth, settled=settled)
    current = None
    if options.run:
        current = calibration_run.sample(options.run.resolve(), count, options.seed)
    asked = config.rewards.judge.require.alt_test
    epsilons = {*calibration.EPSILONS, *([] if asked is None else [asked])}
    return calibration.Plan(
        truth=truth, on_policy=current, probed=options.probes,
        epsilons=tuple(sorted(epsilons)), seed=options.seed,
    )  # fmt: skip


def _errors(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--rater-errors {text!r} is not a list of numbers") from error


def _out(options: argparse.Namespace, config: RunConfig) -> Path:
    if options.out or options.run:
        return Path(options.out or options.run)
    # Not the run's own folder: `rltrain train` would then number its run anew.
    return Path(config.runs_dir) / f"{config.name}.judge"


def _show(found: dict[str, Any], page: Path) -> None:
    rows: Sequence[tuple[str, str, str]] = rows_of(found)
    raters = "synthetic raters" if found["ground_truth"]["synthetic"] else "raters"
    table = Table("", "value", "95 % or note", title=f"judge {found['judge_key']}, {raters}",
                  title_justify="left")  # fmt: skip
    for label, value, note in rows:
        table.add_row(label, value, note)
    console = Console()
    console.print(table)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)
