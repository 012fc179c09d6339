"""Command line -> plain dict -> `RunConfig`.

Hydra composes the YAML groups under `configs/` with overrides; pydantic validates the result once.
The defaults of every section enter Hydra's store as the first layer, so that any key can be
overridden without `+`, and a mistyped key is an error with a suggestion.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from rltrain.config.model import HubModelConfig, TinyModelConfig
from rltrain.config.rewards import RewardsConfig
from rltrain.config.run import RunConfig
from rltrain.config.secrets import leaked
from rltrain.errors import UserError

REQUIRED = {"name": "???", "max_steps": "???", "model": {}, "environment": {"entry": "???"}}
"""What has no default; the groups fill it in."""
REWARD_PARTS = ("judge", "reward_model", "lint")
MOVED = {"train.precision": "precision"}
"""Keys of earlier versions, and the group or key that they are now."""


def config_dir() -> Path:
    """The folder of the YAML groups: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "configs"
    return checkout if checkout.is_dir() else package / "_configs"


def register_schema() -> None:
    """Put every section's defaults into Hydra's store, as `schema/run` and `schema/model/*`."""
    store = ConfigStore.instance()
    run: dict[str, Any] = dict(REQUIRED)
    for name, field in RunConfig.model_fields.items():
        if name not in run and name != "rewards":
            default = field.get_default(call_default_factory=True)
            section = isinstance(default, BaseModel)
            run[name] = default.model_dump(mode="json") if section else default
    parts = {name: RewardsConfig.model_fields[name].default for name in REWARD_PARTS}
    dumped = {name: part.model_dump(mode="json") for name, part in parts.items()}
    run["rewards"] = {"stages": "???", "bonus": {}, **dumped}
    store.store(group="schema", name="run", node=run, package="_global_")
    for name, model in (("tiny", TinyModelConfig()), ("hub", HubModelConfig(name="???"))):
        store.store(group="schema/model", name=name, node=model.model_dump(mode="json"))


def load_config(overrides: Sequence[str]) -> RunConfig:
    """Compose and validate. Raises `UserError`, one sentence, for anything wrong with either."""
    register_schema()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            return validate(compose("train", overrides=list(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_hydra_message(error, overrides)) from error


def validate(composed: DictConfig) -> RunConfig:
    """A composed tree as a `RunConfig`.

    Raises:
        UserError: one line that names key, value and what is allowed.
    """
    try:
        tree = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise UserError(f"config key {key!r} has no value; add {key}=… to the command") from error
    except OmegaConfBaseException as error:
        raise UserError(f"config: {str(error).splitlines()[0]}") from error
    leak = leaked(tree)
    if leak is not None:  # config.yaml, which anybody may read, would hold it
        raise UserError(
            f"config {leak[0]} holds the value of the environment variable {leak[1]}; a config is "
            "written to disk, so give it the name of the variable and read the value where it is "
            "used"
        )
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(_validation_message(error)) from error


def _validation_message(error: ValidationError) -> str:
    first = error.errors()[0]
    parts = [str(p) for p in first["loc"] if p not in ("tiny", "hub")]
    key = ".".join(parts)
    if first["type"] == "extra_forbidden":
        return _unknown(key, error.errors()[0]["input"])
    more = f" ({len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    text = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict) else f" (given: {first['input']!r})"
    return f"config {key or 'tree'}: {text}{given}{more}"


def _hydra_message(error: Exception, overrides: Sequence[str]) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    for override in overrides:
        key, _, value = override.partition("=")
        if f"'{key}'" in text and "Could not override" in text:
            return _unknown(key, value)
    options = [line for line in lines if line.startswith("Available options")]
    if options:
        names = [line for line in lines[lines.index(options[0]) + 1 :] if " " not in line]
        return f"{text.rstrip('.')}; available: {', '.join(names)}"
    return f"config: {' '.join(lines[:2]) if lines else text}"


def _unknown(key: str, value: object) -> str:
    if key in MOVED:
        return f"config key {key} is now {MOVED[key]}: give {MOVED[key]}={value} instead"
    return f"config key {key!r} does not exist{_suggest(key)}"


def _suggest(key: str) -> str:
    close = difflib.get_close_matches(key, [*_keys(RunConfig)], n=1, cutoff=0.6)
    if not close:
        return "; `rltrain train --cfg job` shows all keys"
    if close[0] == key:
        return " for the chosen kind of model; `rltrain train --cfg job` shows all keys"
    return f"; did you mean {close[0]!r}?"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        # `LoraConfig | None` and the kinds of model are unions of sections.
        union = isinstance(field.annotation, UnionType)
        for inner in get_args(field.annotation) if union else (field.annotation,):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _keys(inner, f"{prefix}{name}.")
