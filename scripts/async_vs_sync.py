"""Time asynchronous against synchronous training: docs/benchmarks/async_vs_sync.{json,md}."""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python scripts/async_vs_sync.py --lags 0 1 2"
    )
    parser.add_argument("--lags", type=int, nargs="+", default=[0, 1], help="rollout.max_lag")
    parser.add_argument("--repeats", type=int, default=2, help="rounds over all variants")
    parser.add_argument(
        "--wide",
        type=int,
        default=2,
        help="threads of one more synchronous variant, engine and learner each; 1 leaves it out",
    )
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("overrides", nargs="*", help="config of all runs, such as max_steps=40")
    options = parser.parse_intermixed_args()
    from rltrain.bench import lags

    lags.main(options.lags, options.repeats, options.wide, options.overrides, options.out)


if __name__ == "__main__":
    main()
