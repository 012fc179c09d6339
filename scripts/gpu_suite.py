"""Measure everything that needs a GPU, in under nine minutes: docs/benchmarks/gpu.{json,md}."""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", default=[], help="some of them (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes, any device")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks")
    options = parser.parse_args()
    # Runs from a bare checkout too, on a machine where nothing can be installed.
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "environments")]
    from rltrain.bench import gpu_suite

    return gpu_suite.main(
        options.out, options.parts, dry_run=options.dry_run, device=options.device
    )


if __name__ == "__main__":
    sys.exit(main())
