"""Label rollouts of runs with weak rewards, by execution: rltrain/bench/detectors_harvested_*."""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python scripts/harvest_hacks.py runs/harvest-valid"
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument(
        "--out", type=Path, default=Path("rltrain/bench/detectors_harvested_weak.jsonl")
    )
    parser.add_argument("--source", default="harvested-weak", help="how the cases are called")
    parser.add_argument("--per-kind", type=int, default=150, help="answers per kind and run")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    options = parser.parse_args()
    from rltrain.bench import harvest
    from rltrain.bench.results import command

    command(harvest.main)(
        options.runs, options.out, options.source, options.per_kind, options.seed
    )


if __name__ == "__main__":
    main()
