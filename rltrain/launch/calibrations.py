"""Calibration records: which judge was measured, what came out, and whether it may reward.

    CACHE/calibrations/<judge>/<record>.json

A judge is named by the hash of what it says by: the model's files (or endpoint and name), version,
rubric, prompts, verdicts, how several are combined, and the gates before it. A record is named by
the hash of its content, so that one which was changed or torn is seen. The newest one of a judge
counts.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from rltrain.config import RunConfig
from rltrain.config.judge import JudgeConfig
from rltrain.errors import UserError
from rltrain.launch.models import judge_folder
from rltrain.protocols import Environment
from rltrain.rewards import pairwise
from rltrain.rewards.judges import prompts_of
from rltrain.rewards.rubric import Rubric
from rltrain.rewards.stages import JUDGE_PAIRWISE, JUDGES, SCREEN
from rltrain.track.files import nulled, write_text
from rltrain.warmup.cache import MARKER, content_key, is_complete

FOLDER = "calibrations"
PAY = frozenset({"on_fail", "band", "cost", "timeout_s", "cache"})
PROMPTS = 8
"""Tasks on which the judge's prompts are rendered, to tell them from others."""
COMMAND = "`rltrain judge calibrate` with the same arguments"


def judge_identity(config: RunConfig, env: Environment) -> dict[str, Any]:
    """Everything that decides what the judge says, as plain values without secrets.

    Raises `UserError` if the embedded judge is not built, or a rubric cannot be read."""
    judge = config.rewards.judge
    compares = any(stage.check == JUDGE_PAIRWISE for stage in config.rewards.stages)
    identity: dict[str, Any] = {
        "environment": env.name,
        "members": [_member(config, member) for member in judge.members()],
        "prompts": _prompts(config, env, compares=compares),
        "stages": _stages(config),
    }
    if judge.ensemble:
        identity["ensemble"] = {
            "rule": judge.rule, "quorum": judge.quorum, "pass_at": judge.pass_at,
            "weights": [member.weight for member in judge.ensemble],
        }  # fmt: skip
    if compares:
        identity["pairwise"] = {**judge.pairwise.model_dump(mode="json"), "rules": pairwise.RULES}
    return identity


def _stages(config: RunConfig) -> list[Any]:
    """The stages up to the last judge, but for what they pay: gates decide which answers a judge
    ever sees, and so what a master key can earn."""
    stages = config.rewards.stages
    last = max((n for n, stage in enumerate(stages) if stage.check in JUDGES), default=-1)
    shown: list[Any] = [
        {k: v for k, v in stage.model_dump(mode="json").items() if k not in PAY}
        for stage in stages[: last + 1]
    ]
    if any(stage.check == SCREEN for stage in stages[: last + 1]):
        shown.append(config.detectors.model_dump(mode="json")["rollout"])
    return shown


def _member(config: RunConfig, judge: JudgeConfig) -> dict[str, Any]:
    said = {
        "version": judge.version,
        "verdicts": judge.verdicts,
        "pass_at": judge.pass_at,
        "rubric": Rubric.load(judge.rubric).mark if judge.rubric else None,
        "response_format": judge.response_format,
        "max_chars": judge.max_chars,
    }
    if judge.endpoint is None:
        return {"files": _files(Path(judge_folder(config))), **said}
    # Without user and query, which may hold a secret.
    place = re.sub(r"//[^/@]*@", "//", re.split(r"[?#]", judge.endpoint)[0]).rstrip("/")
    return {"endpoint": place, "model": judge.model, **said}


def _files(folder: Path) -> str:
    """Digest of a model's files. Raises `UserError` if it is not built."""
    if not is_complete(folder):
        raise UserError(f"the embedded judge is not built yet; {COMMAND} builds and measures it")
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MARKER):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _prompts(config: RunConfig, env: Environment, *, compares: bool) -> str:
    """Digest of what judges are shown for a few tasks: another wording is another judge."""
    prompts = prompts_of(config.rewards.judge, env.judge_prompt, compares=compares)
    shown = [
        [[message.role, message.content] for message in prompt(task, "an answer")]
        for task in islice(env.tasks(config.eval.split, 0), PROMPTS)
        for prompt in prompts
    ]
    return content_key({"shown": shown})


def keep(config: RunConfig, identity: Mapping[str, Any], found: Mapping[str, Any]) -> Path:
    """Write a record, whole or not at all; returns its file. found: `measures` and whatever else
    should be known of it."""
    record = nulled({"judge": identity, "at": time.time(), **found})
    text = json.dumps(record, indent=1, sort_keys=True)
    path = _folder(config, identity) / f"{_digest(text)}.json"
    write_text(path, text)
    return path


def newest(config: RunConfig, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest record of this judge, with its name under `record`; None if there is none.

    Raises `UserError` for a record that was changed since it was written, or is none."""
    found = []
    for path in _folder(config, identity).glob("*.json"):
        try:
            text = path.read_text(encoding="utf-8")
            record = json.loads(text)
            if _digest(text) != path.stem:
                raise ValueError("its content is not what was written")
            found.append({**record, "at": float(record["at"]), "record": path.stem})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"the calibration record {path} is damaged ({error}); remove it and run {COMMAND}"
            ) from error
    return max(found, key=lambda record: record["at"], default=None)


def require_calibrated(config: RunConfig, env: Environment) -> None:
    """Raise `UserError` unless the judge that rewards has the calibration that
    `rewards.judge.require` asks for. Asks nothing where no judge rewards."""
    require = config.rewards.judge.require
    if not (require.asks and config.uses_judge):
        return
    identity = judge_identity(config, env)
    record = newest(config, identity)
    if record is None:
        raise UserError(
            f"rewards.judge.require is set, but this judge (judge-{content_key(identity)}) was "
            f"never calibrated; run {COMMAND}"
        )
    unmet = require.unmet(record["measures"])
    if unmet:
        raise UserError(
            f"this judge may not reward by rewards.judge.require: {'; '.join(unmet)} (calibration "
            f"{record['record']}); take a better judge, or correct it and run {COMMAND}"
        )


def stood_on(config: RunConfig, env: Environment) -> dict[str, Any] | None:
    """What a run's facts say of its judge's calibration; None if it has none that can be read."""
    try:
        record = newest(config, judge_identity(config, env))
    except UserError:
        return None
    if record is None:
        return None
    asked = config.rewards.judge.require
    return {
        "judge": content_key(record["judge"]), "record": record["record"], "at": record["at"],
        "ground_truth": record.get("ground_truth"), "measures": record["measures"],
        "required": asked.model_dump(mode="json", exclude_none=True) if asked.asks else None,
    }  # fmt: skip


def _folder(config: RunConfig, identity: Mapping[str, Any]) -> Path:
    return Path(config.cache_dir).resolve() / FOLDER / f"judge-{content_key(identity)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
