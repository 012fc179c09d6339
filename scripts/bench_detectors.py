"""Measure the detectors on all shipped cases: docs/benchmarks/detectors.{json,md}."""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=120, help="tasks to plant hacks under")
    parser.add_argument("--runs", type=int, default=100, help="synthetic runs per scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    from rltrain.bench import detectors

    facts = detectors.main([], [], count=options.tasks, seed=options.seed, runs=options.runs)
    detectors.save(facts, options.out)


if __name__ == "__main__":
    main()
