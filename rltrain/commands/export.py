"""`rltrain export RUN`: a run's adapter or model, ready to load elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from rltrain.launch.export import export_run
from rltrain.rundir import RunDir


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="rltrain export",
        description="Write the policy of a run's newest checkpoint: OUT/adapter (PEFT) for a LoRA "
        "run, OUT/model (transformers) for full training. Both load in vLLM as they are.",
    )
    parser.add_argument("run", type=Path, help="run directory, such as runs/segments_cpu")
    parser.add_argument("--out", type=Path, help="folder to write to (default: the run directory)")
    parser.add_argument(
        "--merged", action="store_true", help="also fold a LoRA adapter into its base: OUT/model"
    )
    options = parser.parse_args(args)
    run = RunDir(options.run.resolve())
    run.load_config()
    out = options.out or run.path
    out.mkdir(parents=True, exist_ok=True)
    print(export_run(run, out, merged=options.merged))
