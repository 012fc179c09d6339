"""Time the learner's step by packing, attention, precision: docs/benchmarks/learner.{json,md}."""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packing", nargs="+", default=["padded", "shared_prefix"])
    parser.add_argument("--attention", nargs="+", default=["eager", "sdpa"])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each kind")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("overrides", nargs="*", help="config, such as train.threads=2")
    options = parser.parse_intermixed_args()
    from rltrain.bench import learner

    overrides = ["experiment=segments_cpu", *options.overrides]
    kinds = (options.packing, options.attention, options.precision)
    learner.main(*kinds, options.repeats, overrides, options.out)


if __name__ == "__main__":
    main()
