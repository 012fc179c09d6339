"""`rltrain lint-rewards`: find what is wrong with a gated reward before a policy does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from rltrain import build
from rltrain.config import RunConfig
from rltrain.config.compose import load_config, validate
from rltrain.errors import UserError
from rltrain.rewards.ladder import outcomes
from rltrain.rewards.probe import Probed

WRONG = 2
UNREAD = ("name=lint", "max_steps=1000000")
"""What a run needs and a reward does not."""


def main(args: list[str]) -> None:
    options = _parse(args)
    files = [text for text in options.given if text.endswith((".yaml", ".yml"))]
    if len(files) > 1:
        raise UserError("give one FILE with a reward; there are " + ", ".join(files))
    overrides = [text for text in options.given if text not in files]
    config = load_config([*UNREAD, *overrides] if overrides else ["experiment=segments_cpu"])
    if files:
        config = _with_rewards(config, files[0])
    env = build.environment(config.environment)
    found = build.lint_rewards(config, env)
    _show(config, found)
    for sentence in found.problems:
        print(f"error: {sentence}", file=sys.stderr)
    if found.problems:
        sys.exit(WRONG)


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="rltrain lint-rewards",
        description="Check a reward: what every outcome pays, and what answers earn that do not "
        "look at the task. Asks every check but judges and reward models. Exit code 0 if nothing "
        "is wrong, 2 with one sentence per problem.",
        epilog="example: rltrain lint-rewards my_reward.yaml environment=segments",
    )
    parser.add_argument(
        "given", nargs="*", metavar="FILE | key=value",
        help="a YAML file with `stages` as in configs/rewards, and config overrides",
    )
    return parser.parse_args(args)


def _with_rewards(config: RunConfig, name: str) -> RunConfig:
    try:
        rewards = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"cannot read a reward from {name}: {first}") from error
    if not isinstance(rewards, dict):
        raise UserError(f"{name} holds no reward; write `stages:` with a list of checks")
    tree = config.model_dump(mode="json")
    return validate(OmegaConf.create({**tree, "rewards": rewards}))


def _show(config: RunConfig, found: Probed) -> None:
    print("outcome, worst first: reward")
    for outcome in outcomes(config.rewards):
        pays = f"{outcome.low:g}" if outcome.low == outcome.high else (
            f"{outcome.low:g} to {outcome.high:g}"
        )
        print(f"  {outcome.name}: {pays}")
    if not found.tried:
        return
    print(f"mean reward of answers on {found.tasks} tasks, models not asked")
    for name, tried in found.tried.items():
        reach = f" ({tried.asked_a_model:.0%} reach a model)" if tried.asked_a_model else ""
        print(f"  {name}: {tried.reward:.3f}{reach}")
