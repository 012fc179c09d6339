"""`rltrain build`: build the embedded policy and judge, or find them in the cache."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from rltrain.config.compose import load_config
from rltrain.launch.models import ensure_models
from rltrain.rundir import create_run
from rltrain.track import ProgressView


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="rltrain build",
        description="Build the embedded policy and judge of a config into its cache (or find them "
        "there), and print where they are. `rltrain train` does this by itself.",
        epilog="example: rltrain build experiment=segments_cpu model.warmup.steps=400",
    )
    parser.add_argument("overrides", nargs="*", help="config, such as experiment=segments_cpu")
    options = parser.parse_args(args)
    config = load_config(options.overrides or ["experiment=segments_cpu"])
    with tempfile.TemporaryDirectory() as work, ProgressView(0) as view:
        run = create_run(config.model_copy(update={"runs_dir": str(Path(work)), "name": "build"}))
        policy, judge, seconds = ensure_models(config, run, view.phase)
    print(json.dumps({"policy": policy, "judge": judge, "seconds": round(seconds, 1)}))
