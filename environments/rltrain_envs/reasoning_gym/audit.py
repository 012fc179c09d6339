"""Every dataset's scorer attacked by agents that know nothing: docs/benchmarks/reasoning_gym.md.

    python -m rltrain_envs.reasoning_gym.audit --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from rich.progress import track

from rltrain.bench import audit_env, results
from rltrain.bench.audit_env import BOUND, Paid
from rltrain.commands.audit_env import reward_of
from rltrain.config.compose import load_config
from rltrain.errors import UserError
from rltrain_envs.reasoning_gym.env import ReasoningGym, package

KNOWN = 100
"""Training tasks whose commonest answer is tried on the held-out ones."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=24, help="held-out tasks of each dataset")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("datasets", nargs="*", help="default: all but composite")
    options = parser.parse_args()
    names = options.datasets or sorted(set(package().factory.DATASETS) - {"composite"})
    where = results.machine()
    rows = []
    for name in track(names, "attacking", transient=True):
        rows.append(examine(name, options.tasks))
        print(rows[-1]["line"], file=sys.stderr)
    facts = {"machine": where, "package": version("reasoning-gym"), "tasks": options.tasks,
             "bound": BOUND, "datasets": rows}  # fmt: skip
    results.keep(options.out, "reasoning_gym", facts, text(facts))


def examine(name: str, count: int, known: int = KNOWN) -> dict[str, Any]:
    """What every agent earned from one dataset, whose whole answers are scored as they are."""
    started = time.perf_counter()
    env = ReasoningGym(name, {}, "text")
    reward, _ = reward_of(env, load_config(["experiment=segments_cpu"]))
    tasks = list(islice(env.tasks("test", 0), count))
    try:
        seen = list(islice(env.tasks("train", 0), known))
    except UserError:  # too small for training
        seen = []
    paid = audit_env.attack(env, reward, tasks, seen)
    bad = [one for one in paid if not one.sound]
    line = f"{name}: " + ("; ".join(map(said, bad)) or "sound")
    return {
        "dataset": name, "sound": not bad, "trains": bool(seen), "line": line,
        "agents": {one.name: [round(one.mean, 4), len(one.exceptions)] for one in paid},
        "failing": [said(one) for one in bad], "seconds": time.perf_counter() - started,
    }  # fmt: skip


def said(paid: Paid) -> str:
    """An agent that earned what it should not, in a few words."""
    if not paid.exceptions:
        return f"{paid.name} {paid.mean:.2f}"
    return f"{paid.name} raised {paid.exceptions[0].rsplit(' raised ', 1)[-1][:40]}"


def text(facts: dict[str, Any]) -> str:
    failing = [row for row in facts["datasets"] if not row["sound"]]
    table = [
        {"dataset": row["dataset"], "who is paid, or what raised": _short(row["failing"])}
        for row in failing
    ]
    return "\n".join([
        "# The scorers of reasoning-gym, attacked",
        "",
        f"reasoning-gym {facts['package']}, {len(facts['datasets'])} datasets with their default "
        f"settings, {facts['tasks']} tasks each; an agent that looks at no task may earn "
        f"{facts['bound']} on average. {len(failing)} datasets fail:",
        "",
        results.table(table) if table else "none",
        "",
        "Paying a constant is not always a defect: of a question with two answers, each is right "
        "half the time. It is still what a policy learns first.",
    ])  # fmt: skip


def _short(found: list[str]) -> str:
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return ("; ".join(found[:4]) + more).replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
