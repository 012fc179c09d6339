"""Check every algorithm against TRL and write docs/algorithms.md."""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/algorithms.md"))
    options = parser.parse_args()
    from rltrain.bench import algorithms

    algorithms.main(options.out)


if __name__ == "__main__":
    main()
