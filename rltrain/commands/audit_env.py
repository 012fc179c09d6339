"""`rltrain audit-env NAME`: what an environment's reward pays agents that know nothing."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table

from rltrain import build
from rltrain.bench import audit_env as audit
from rltrain.config import RunConfig
from rltrain.config.compose import config_dir, load_config
from rltrain.config.rewards import StageConfig
from rltrain.config.rollout import EnvironmentConfig
from rltrain.detectors import DETECTORS, build_screen
from rltrain.errors import UserError
from rltrain.protocols import Environment
from rltrain.rewards import GatedReward
from rltrain.rewards.stages import MODELS
from rltrain.track.files import to_json

UNSOUND = 3


def main(args: list[str]) -> None:
    options = _parse(args)
    facts = facts_of(options.environment, options.overrides, options.tasks, options.bound)
    print(to_json(facts, indent=2)) if options.json else _print(facts)
    sys.stdout.flush()
    if not facts["sound"]:
        sys.exit(UNSOUND)


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="rltrain audit-env",
        description="Attack an environment's reward with agents that have no model: null, "
        "constants, echo, junk, refusal, tags, injections, the commonest right answer, and its own "
        "adversaries. Exit code 0 if none earns more than the bound, the oracle earns nearly "
        "everything, nothing raises, and tasks are deterministic and do not leak; 3 if not.",
        epilog="example: rltrain audit-env segments    or: rltrain audit-env my_package:build",
    )
    parser.add_argument(
        "environment", help="name under configs/environment, or module:function of an entry point"
    )
    parser.add_argument("--tasks", type=int, default=60, help="held-out tasks (default 60)")
    parser.add_argument(
        "--bound", type=float, default=audit.BOUND,
        help="mean reward that an agent without knowledge may earn (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument(
        "overrides", nargs="*", help="config, such as rewards=exact or environment.args.seed=1"
    )
    return parser.parse_intermixed_args(args)


def facts_of(name: str, overrides: list[str], count: int, bound: float) -> dict[str, Any]:
    """Everything that the audit finds; `sound` says whether all is well. Raises `UserError`."""
    if count < 1:
        raise UserError("--tasks must be at least 1")
    config, part = _configs(name, overrides)

    def open_env() -> Environment:
        return build.environment(part)

    env = open_env()
    reward, stages = reward_of(env, config)
    splits = audit.splits_of(env)
    if not splits:
        raise UserError(f"{name} has none of the splits train, validation and test")
    held_out = next((s for s in ("test", "validation") if s in splits), "train")
    tasks = list(islice(env.tasks(held_out, 0), count))
    known = list(islice(env.tasks(splits[0], 0), max(count, 200)))
    paid = audit.attack(env, reward, tasks, known, bound)
    streams = audit.streams(env, splits, max(count, 500))
    problems = [
        *audit.determinism(open_env, splits, min(count, 50)),
        *audit.steady(env, reward, tasks),
        *streams.pop("problems"),
    ]
    return {
        "environment": env.name, "version": env.version, "stages": stages, "split": held_out,
        "tasks": len(tasks), "bound": bound,
        "agents": [
            {
                "agent": p.name, "mean": p.mean, "most": p.most, "bound": p.bound,
                "sound": p.sound, "reason": p.reason, "exceptions": p.exceptions,
            }
            for p in paid
        ],
        "streams": streams, "problems": problems,
        "sound": not problems and all(p.sound for p in paid),
    }  # fmt: skip


def _configs(name: str, overrides: list[str]) -> tuple[RunConfig, EnvironmentConfig]:
    """The config that gates and detectors come from, and the environment's own section.

    The section is read by itself: an experiment's arguments are another environment's."""
    own = [o for o in overrides if o.lstrip("+~").startswith("environment.")]
    rest = [o for o in overrides if o not in own]
    chosen = any(o.startswith("experiment=") for o in rest)
    config = load_config([*([] if chosen else ["experiment=segments_cpu"]), *rest])
    if ":" in name:
        return config, EnvironmentConfig(entry=name, args={})
    path = config_dir() / "environment" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise UserError(
            f"there is no environment {name!r}; there are {known}, or give module:function"
        )
    alone = [f"environment={name}", "name=audit", "max_steps=1", *own]
    return config, load_config(alone).environment


def reward_of(env: Environment, config: RunConfig) -> tuple[GatedReward, list[str]]:
    """The configured gates if the environment has them all; else all of its own, in its order, with
    its own detectors set to zero a reward. Judges are left out: they need a server."""
    checks = env.checks()
    wanted = [s for s in config.rewards.stages if s.check not in MODELS]
    fits = any(s.check in checks for s in wanted) and all(
        s.check in checks or s.check == "screen" for s in wanted
    )
    known = {**DETECTORS, **env.detectors()}
    detectors = {name: d for name, d in config.detectors.rollout.items() if name in known}
    if not fits:
        wanted = [StageConfig(check=check) for check in checks]
        detectors = {}
    screened = config.detectors.model_copy(update={"rollout": detectors})
    stages = [s.check for s in wanted]
    return GatedReward(wanted, env, build_screen(screened, env), None, None), stages


def _print(facts: dict[str, Any]) -> None:
    console = Console()
    head = f"{facts['environment']} {facts['version']}: {facts['tasks']} {facts['split']} tasks, "
    console.print(head + f"gates {' > '.join(facts['stages'])}", highlight=False, soft_wrap=True)
    table = Table("agent", "mean", "most", "bound", "", "why")
    for row in facts["agents"]:
        why = "; ".join([*([row["reason"]] if row["reason"] else []), *row["exceptions"]])
        verdict = "ok" if row["sound"] else "FAILS"
        cells = (f"{row['mean']:.3f}", f"{row['most']:.3f}", f"{row['bound']:.2f}")
        table.add_row(row["agent"], *cells, verdict, why)
    console.print(table)
    for problem in facts["problems"]:
        console.print(f"FAILS: {problem}", highlight=False, soft_wrap=True)
    streams = facts["streams"]
    console.print(
        f"train tasks that come again within a seed: {streams['repeated_within_a_seed']:.1%}; "
        f"shared by two seeds: {streams['shared_by_two_seeds']:.1%}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    console.print("sound" if facts["sound"] else "not sound", highlight=False)
