"""`rltrain rollback`: an earlier promoted version back into service."""

from __future__ import annotations

import argparse

from rltrain.commands.promote import add_registry, user
from rltrain.launch.registry import Registry


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="rltrain rollback",
        description="Put an earlier promoted version back into service, after its checksums were "
        "compared. With --log: print every decision, after the chain of hashes was checked.",
        epilog="example: rltrain rollback segments --to 3 --note 'complaints since Monday'",
    )
    parser.add_argument("name", help="what is served under this name, such as segments")
    add_registry(parser)
    parser.add_argument("--to", type=int, help="version (default: the one promoted before)")
    parser.add_argument("--log", action="store_true", help="only show what was decided, and when")
    options = parser.parse_args(args)
    registry = Registry(options.registry, options.name)
    if options.log:
        for row in registry.decisions():
            over = f" over {row['over']}" if row.get("over") else ""
            why = "; ".join(row.get("why", ())) or row["note"]
            what = f"{row['what']} {row.get('version', row.get('run', ''))}{over}"
            print(f"{row['time']:.0f}  {what}  by {row['by']}  {why}".rstrip())
        return
    done = registry.rollback(options.to, by=user(), note=options.note)
    now, over = done["version"], done["over"]
    print(f"{options.name}: version {now} is in service again, in place of {over}")
