"""Validator v1 to v3 and judge v1 to v2 on segments: docs/benchmarks/production.{json,md} and
docs/images/production.png. Three runs, about 20 minutes on two cores."""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: python scripts/production_table.py max_steps=20"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reuse", action="store_true", help="keep finished runs/production-<arm>")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("overrides", nargs="*", help="config of all runs, such as max_steps=250")
    options = parser.parse_intermixed_args()
    from rltrain.bench import production

    production.main(options.overrides, options.seed, options.out, options.reuse)


if __name__ == "__main__":
    main()
