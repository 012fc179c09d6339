"""`rltrain tasks`: an environment's tasks as JSON lines: id, request, gold, split."""

from __future__ import annotations

import argparse
import itertools
import json

from rltrain import build
from rltrain.config.compose import load_config
from rltrain.types import Task


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="rltrain tasks",
        description="Print tasks of an environment as JSON lines: id, request, gold, split, meta.",
        epilog="example: rltrain tasks experiment=segments_cpu --split test --count 3",
    )
    parser.add_argument("--split", default="test", help="train, validation, test, … (default test)")
    parser.add_argument("--count", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of an endless split (default 0)")
    parser.add_argument("overrides", nargs="*", help="config, such as experiment=segments_cpu")
    options = parser.parse_intermixed_args(args)
    config = load_config(options.overrides or ["experiment=segments_cpu"])
    env = build.environment(config.environment)
    for task in itertools.islice(env.tasks(options.split, options.seed), options.count):
        print(json.dumps(row(task), ensure_ascii=False))


def row(task: Task) -> dict[str, object]:
    """What is shown of a task; everything else in `data` stays hidden."""
    return {
        "id": task.id,
        "request": task.prompt[-1].content,
        "gold": task.data.get("gold"),
        "split": task.split,
        **{"meta": dict(task.meta)},
    }
