"""Policy and judge as folders on disk: found in the cache, or built in child processes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rltrain import build
from rltrain.config import RunConfig
from rltrain.config.model import HubModelConfig, TinyModelConfig
from rltrain.errors import UserError
from rltrain.launch.child import PROGRESS_PREFIX
from rltrain.launch.children import Child
from rltrain.protocols import Teachable
from rltrain.rundir import RunDir

Phase = Callable[[str, float, float, str], None]
"""Called with (name, done, total, note)."""


def _environment_ingredients(config: RunConfig) -> dict[str, Any]:
    from rltrain.warmup.cache import source_digest

    module = sys.modules[build.environment(config.environment).__class__.__module__]
    folder = Path(str(module.__file__)).parent
    warmup = Path(__file__).resolve().parents[1] / "warmup"
    return {
        "environment": config.environment.model_dump(mode="json"),
        "source": source_digest(folder, warmup),
    }


def policy_folder(config: RunConfig) -> str:
    """Where the policy is, or will be once built. Raises `UserError` if it cannot be had."""
    from rltrain.warmup.cache import content_key

    model = config.model
    if not isinstance(model, TinyModelConfig):
        return _pretrained(model)
    settings = model.model_dump(mode="json")
    settings["warmup"].pop("threads")  # how it is built, not what
    key = content_key({"policy": settings, **_environment_ingredients(config)})
    return str(Path(config.cache_dir).resolve() / f"policy-{key}")


def _pretrained(model: HubModelConfig) -> str:
    """A local folder of a pretrained model, downloaded if need be. Raises `UserError`."""
    if Path(model.name).is_dir():
        return str(Path(model.name).resolve())
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return str(snapshot_download(model.name, revision=model.revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"model {model.name!r} is neither a folder here nor could it be fetched from the hub "
            f"({type(error).__name__}); check model.name, or use model=tiny, which needs no network"
        ) from error


def judge_folder(config: RunConfig) -> str:
    """Where the embedded judge is, or will be once built."""
    from rltrain.warmup.cache import content_key

    settings = config.rewards.judge.tiny.model_dump(mode="json")
    settings.pop("threads")
    key = content_key({"judge": settings, **_environment_ingredients(config)})
    return str(Path(config.cache_dir).resolve() / f"judge-{key}")


def _teacher(config: RunConfig) -> Any:
    env = build.environment(config.environment)
    if not isinstance(env, Teachable):
        raise UserError(
            f"environment {env.name} has no demonstrations to warm up a tiny model; choose a "
            "pretrained one (model=qwen3_0_6b) and a judge endpoint (rewards.judge.endpoint=…)"
        )
    return env


def build_policy_into(config: RunConfig, folder: Path, progress: Callable[..., None]) -> None:
    """Build the policy unless its folder is complete. For the child process."""
    from rltrain.warmup.cache import build_once
    from rltrain.warmup.policy import build_policy

    model = config.model
    assert isinstance(model, TinyModelConfig)
    build_once(folder, lambda work: build_policy(_teacher(config), model, work, progress))


def build_judge_into(config: RunConfig, folder: Path, progress: Callable[..., None]) -> None:
    """Build the judge unless its folder is complete. For the child process."""
    from rltrain.warmup.cache import build_once
    from rltrain.warmup.judge import build_judge

    tiny = config.rewards.judge.tiny
    build_once(folder, lambda work: build_judge(_teacher(config), tiny, work, progress))


def ensure_models(
    config: RunConfig, run: RunDir, phase: Phase, *, with_judge: bool = True
) -> tuple[str, str | None, float]:
    """Policy and judge, both complete: (policy, judge or None if not needed, seconds building).

    What is missing is built side by side, one process each. with_judge: False leaves the judge out
    even where the config measures one. Raises `ChildDied` if a build fails.
    """
    from rltrain.warmup.cache import is_complete

    started = time.monotonic()
    wanted: dict[str, str] = {}
    policy = policy_folder(config)
    if isinstance(config.model, TinyModelConfig):
        wanted["policy"] = policy
    judge = None
    if with_judge and config.measures_judge and config.rewards.judge.own_server:
        judge = wanted["judge"] = judge_folder(config)
    children = {
        kind: Child(
            f"building the {kind}",
            ["build", kind, str(run.path), folder],
            run.logs / f"build-{kind}.log",
        )
        for kind, folder in wanted.items()
        if not is_complete(Path(folder))
    }
    try:
        while any(child.poll() is None for child in children.values()):
            for child in children.values():
                child.check()
            _show(children, phase)
            time.sleep(0.5)
        for child in children.values():
            child.check()
    finally:
        for child in children.values():
            child.stop()
    return policy, judge, time.monotonic() - started


def _show(children: dict[str, Child], phase: Phase) -> None:
    done = total = 0.0
    notes = []
    for kind, child in children.items():
        lines = child.log.read_text(errors="replace").splitlines()
        rows = [x for x in lines if x.startswith(PROGRESS_PREFIX)]
        if rows:
            k, n, note = json.loads(rows[-1].removeprefix(PROGRESS_PREFIX))
            done, total = done + k, total + n
            notes.append(f"{kind} {k}/{n} {note}")
    phase("building " + " and ".join(children), done, total, ", ".join(notes))
