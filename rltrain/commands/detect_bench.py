"""`rltrain detect-bench`: what the detectors find and miss on labelled answers."""

from __future__ import annotations

import argparse
from pathlib import Path

from rltrain.bench import detectors
from rltrain.track.files import to_json


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="rltrain detect-bench",
        description="Precision, recall and F1 with intervals, correct answers flagged and time per "
        "rollout, for every detector and its version. Without a file: everything that comes with "
        "the project. A line of a file is a JSON object with `answer`, `kinds` (detector names; [] "
        "for none), and if known `request`, `correct`, `labelled`, `env` and `data`: see "
        "docs/detectors.md. `rltrain flags RUN --export` writes such files.",
        epilog="example: rltrain detect-bench labelled.jsonl --mistakes",
    )
    parser.add_argument("cases", nargs="*", help="JSONL files, and config such as environment=…")
    parser.add_argument("--detector", action="append", default=[], help="only this one; repeatable")
    parser.add_argument(
        "--tasks", type=int, default=detectors.TASKS,
        help="tasks of the environment under which hacks are planted (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--mistakes", action="store_true", help="print what was missed or flagged")
    parser.add_argument("--out", type=Path, help="folder to write detectors.json and .md to")
    options = parser.parse_intermixed_args(args)
    overrides = [item for item in options.cases if "=" in item and not Path(item).exists()]
    paths = [Path(item) for item in options.cases if item not in overrides]
    facts = detectors.main(
        paths, overrides, count=options.tasks, seed=options.seed, only=options.detector
    )
    if options.out:
        detectors.save(facts, options.out)
    elif options.json:
        print(to_json(facts, indent=2))
    else:
        print(detectors.text_of(facts))
    if options.mistakes and not options.json:
        for mistake in facts["mistakes"]:
            print(to_json(mistake))
