"""`rltrain train`: Hydra composes the config (groups, overrides, --multirun, --cfg job, shell
completion), then the run starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from rltrain.config.compose import config_dir, load_config, register_schema, validate
from rltrain.report import summarize
from rltrain.rundir import RunDir

HYDRA_FLAGS = {
    "--help", "-h", "--hydra-help", "--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i",
    "--multirun", "-m", "--shell-completion", "-sc", "--version",
}  # fmt: skip


def main(args: list[str]) -> None:
    """Validate first (so that errors are ours: one sentence), then hand over to Hydra."""
    register_schema()
    if not any(arg.split("=")[0] in HYDRA_FLAGS for arg in args):
        load_config([arg for arg in args if not arg.startswith("-")])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach our own handler instead of being printed
    sys.argv = ["rltrain train", *args]
    decorate = hydra.main(
        version_base="1.3", config_path=str(config_dir()), config_name="train"
    )
    decorate(_start)()


def _start(composed: DictConfig) -> None:
    from rltrain.launch.training import train

    run = train(validate(composed))
    print_result(run)


def print_result(run: RunDir) -> None:
    """The before/after table and where the report is."""
    summary = summarize(run.path)
    console = Console()
    ranking = (summary["offline"] or {}).get("ranking")
    if ranking:
        print_ranking(console, ranking, run)
        return
    if summary["eval"]["after"]["n"] is None:  # a replay, which has nothing to evaluate with
        console.print(f"report: {run.path / 'report.html'}", highlight=False, soft_wrap=True)
        return
    table = Table(title=f"{run.path.name}: held-out tasks, greedy", title_justify="left")
    for column in ("", "before", "after", "change"):
        table.add_column(column, justify="left" if not column else "right")
    before, after = summary["eval"]["before"], summary["eval"]["after"]
    for label, key in (
        ("exact match (executed truth)", "exact"),
        ("valid (format, syntax, schema)", "valid"),
        ("hacks (any detector)", "hack_rate"),
    ):
        first, last = before.get(key), after.get(key)
        if first is not None and last is not None:
            change = f"{100 * (last - first):+.1f} points"
            table.add_row(label, f"{first:.3f}", f"{last:.3f}", change)
    low, high = after["ci95"]
    console.print(table)
    console.print(
        f"n = {after['n']} tasks of unseen kinds; exact after: 95 % interval "
        f"[{low:.3f}, {high:.3f}] (Wilson)",
        highlight=False,
    )
    console.print(f"report: {run.path / 'report.html'}", highlight=False, soft_wrap=True)


def print_ranking(console: Console, ranking: Mapping[str, Any], run: RunDir) -> None:
    """How a reward model ranks held-out pairs, and how it becomes a gate."""
    before, after = ranking["before"], ranking["after"]
    if after["n"]:
        low, high = after["ci95"]
        text = (
            f"ranks {after['accuracy']:.3f} of n = {after['n']} held-out pairs right (95 % "
            f"interval [{low:.3f}, {high:.3f}], Wilson); {before['accuracy']:.3f} before training"
        )
        console.print(text, highlight=False, soft_wrap=True)
    else:
        console.print("too few tasks to hold any out: its ranking was not measured")
    use = f"use it: rewards=reward_model rewards.reward_model.folder={run.path / 'model'}"
    console.print(use, highlight=False, soft_wrap=True)
    console.print(f"report: {run.path / 'report.html'}", highlight=False, soft_wrap=True)
