"""Train the flagship with several seeds: docs/benchmarks/seeds.{json,md}."""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python scripts/seeds.py --seeds 0 1 2 max_steps=150"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--reuse", action="store_true", help="keep finished runs/seeds-<seed>")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("overrides", nargs="*", help="config of all runs, such as max_steps=10")
    options = parser.parse_intermixed_args()
    from rltrain.bench import seeds

    seeds.main(options.seeds, options.overrides, options.out, options.reuse)


if __name__ == "__main__":
    main()
