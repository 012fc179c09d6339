"""Time our step against TRL's GRPOTrainer: docs/benchmarks/trl_<precision>.{json,md}."""

import argparse
from itertools import product
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12, help="of which 2 are warm-up")
    parser.add_argument("--groups", type=int, default=16, help="prompts per step")
    parser.add_argument("--group-size", type=int, default=8, help="answers per prompt")
    parser.add_argument("--tokens", type=int, default=40, help="exact length of every answer")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="both sides")
    parser.add_argument("--trl-attention", nargs="+", default=["sdpa", "eager"])
    parser.add_argument(
        "--trl-micro-batch",
        type=int,
        nargs="+",
        default=[128],
        help="sequences per forward pass; TRL is run once for each combination of these three",
    )
    parser.add_argument("--trl-threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("overrides", nargs="*", help="config of our runs")
    options = parser.parse_intermixed_args()
    from rltrain.bench import trl

    work = trl.Work(
        steps=options.steps, groups=options.groups,
        group_size=options.group_size, tokens=options.tokens, precision=options.precision,
    )  # fmt: skip
    kinds = product(options.trl_attention, options.trl_micro_batch, options.trl_threads)
    competitors = [trl.Competitor(attention=a, micro_batch=m, threads=t) for a, m, t in kinds]
    trl.main(work, competitors, options.overrides, options.out)


if __name__ == "__main__":
    main()
