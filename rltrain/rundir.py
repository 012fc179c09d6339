"""The run directory: where everything that a run says about itself lies.

    runs/<name>/  config.yaml  metrics.jsonl  events.jsonl  facts/  rollouts/  eval/  ledger.sqlite
                  checkpoints/  adapter/ or model/  logs/  summary.json  report.html  wandb/
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rltrain.config import RunConfig
from rltrain.errors import UserError


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths of one run. Each file has one writer."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def eval(self) -> Path:
        return self.path / "eval"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def load_config(self) -> RunConfig:
        """The resolved config. Raises `UserError` if this is no run directory."""
        if not self.config_file.is_file():
            raise UserError(f"{self.path} is not a run directory: it has no config.yaml")
        try:
            tree = yaml.safe_load(self.config_file.read_text())
            return RunConfig.model_validate(_moved(tree))
        except (yaml.YAMLError, ValueError) as error:  # not YAML, not UTF-8, or no config
            first = str(error).splitlines()[0]
            raise UserError(f"{self.config_file} is damaged: {first}") from error


def _moved(tree: Any) -> Any:
    """A run's tree with keys of earlier versions where they are now."""
    train = tree.get("train") if isinstance(tree, dict) else None
    if isinstance(train, dict) and "precision" in train:
        rest = {key: value for key, value in train.items() if key != "precision"}
        return {**tree, "train": rest, "precision": {"compute": train["precision"]}}
    return tree


def create_run(config: RunConfig) -> RunDir:
    """Make the directory of a new run and write its config.

    A run of the same name is never overwritten unless `overwrite=true`: the new one becomes
    `<name>-2`, `<name>-3`, ... Raises `UserError` where nothing can be written.
    """
    base = Path(config.runs_dir) / config.name
    path = base
    try:
        if config.overwrite:
            shutil.rmtree(base, ignore_errors=True)
        number = 2
        while path.exists():
            path = base.with_name(f"{base.name}-{number}")
            number += 1
        run = RunDir(path.resolve())
        for folder in (run.path, run.rollouts, run.eval, run.logs, run.checkpoints):
            folder.mkdir(parents=True)
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        run.config_file.write_text(text, encoding="utf-8")
        return run
    except OSError as error:
        raise UserError(
            f"cannot write the run directory {path}: {error.strerror}; set runs_dir=… to a folder "
            "with space and write permission"
        ) from error
