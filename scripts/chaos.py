"""Kill random processes of real runs and count what is lost: docs/benchmarks/chaos.{json,md}."""

import argparse
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python scripts/chaos.py --runs 1 --harms 5"
    )
    parser.add_argument("--runs", type=int, default=8, help="half of them synchronous")
    parser.add_argument("--harms", type=int, default=100, help="over all runs")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of each run")
    parser.add_argument("--seed", type=int, default=0, help="of victims, harms and pauses")
    parser.add_argument("--pause", type=float, nargs=2, default=[1.0, 8.0], help="seconds between")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one run")
    parser.add_argument("--work", type=Path, help="keep the runs here instead of a folder in /tmp")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("overrides", nargs="*", help="config of all runs")
    options = parser.parse_intermixed_args()
    from rltrain.bench import chaos

    plan = chaos.Plan(
        runs=options.runs, harms=options.harms, steps=options.steps, seed=options.seed,
        pause_s=(options.pause[0], options.pause[1]), timeout_s=options.timeout,
    )  # fmt: skip
    work = options.work or Path(tempfile.mkdtemp(prefix="rltrain-chaos-"))
    work.mkdir(parents=True, exist_ok=True)
    chaos.main(plan, options.overrides, work.resolve(), options.out.resolve())


if __name__ == "__main__":
    main()
