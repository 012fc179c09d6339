"""`rltrain mismatch`: how far learner and engine are apart, without any training."""

from __future__ import annotations

import argparse
from pathlib import Path

from rltrain.bench import mismatch, mismatch_picture, results
from rltrain.errors import UserError
from rltrain.track import ProgressView


def main(args: list[str]) -> None:
    options = _parse(args)
    if options.answers < 2:
        raise UserError("--answers must be at least 2, or there is no interval")
    names = [name for name in options.precisions.split(",") if name]
    with ProgressView(0) as view:
        overrides = options.overrides or ["experiment=segments_cpu"]
        facts = mismatch.run(overrides, names, options.answers, view.phase)
    results.keep(options.out, "mismatch", facts, mismatch.text(facts))
    for path in mismatch_picture.draw(facts, options.out / "mismatch.html"):
        print(f"written: {path}")


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="rltrain mismatch",
        description="Start the real engine with a policy, sample, and score the same tokens with "
        "the learner and with the engine's prefill. Writes a table (JSON, Markdown) and a picture.",
        epilog="example: rltrain mismatch experiment=segments_cpu --precisions fp32,fp16,bf16",
    )
    parser.add_argument("overrides", nargs="*", help="config, such as model=tiny precision=fp16")
    parser.add_argument(
        "--precisions", default="", metavar="A,B",
        help="options of the group precision, measured in turn (default: the config's own)",
    )  # fmt: skip
    parser.add_argument("--answers", type=int, default=256, help="answers to sample (default 256)")
    parser.add_argument("--out", type=Path, default=Path("mismatch"), help="folder (./mismatch)")
    return parser.parse_intermixed_args(args)
