"""`rltrain score`: what the reward says about answers in a file, without any training."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rltrain import build
from rltrain.config import RunConfig
from rltrain.config.compose import load_config
from rltrain.errors import SystemFault, UserError
from rltrain.protocols import Environment
from rltrain.rewards import GatedReward
from rltrain.track.files import to_json
from rltrain.types import Episode, Screened, Task, Turn


def main(args: list[str]) -> None:
    options = _parse(args)
    config = load_config(options.overrides or ["experiment=segments_cpu"])
    env = build.environment(config.environment)
    answers = _read(options.answers)
    known = _tasks(env, {row["id"] for row in answers}, options.search)
    with _judge_endpoint(config, wanted=not options.no_judge) as endpoint:
        use_judge = config.uses_judge and not options.no_judge
        asyncio.run(_score(config, env, answers, known, endpoint, use_judge))


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="rltrain score",
        description="Score answers: one JSON line per answer with the verdict of every gate "
        "reached, flags with evidence, reward and executed truth.",
        epilog="example: rltrain tasks --count 5 | python add_answers.py "
        "| rltrain score - --no-judge",
    )
    parser.add_argument(
        "answers", help="JSONL file with id and answer on each line, or - for stdin"
    )
    parser.add_argument("--no-judge", action="store_true", help="leave the judge gate out")
    parser.add_argument(
        "--search", type=int, default=20_000,
        help="how many train tasks to look through for the ids (default 20000)",
    )
    parser.add_argument("overrides", nargs="*", help="config, such as rewards=executed")
    return parser.parse_intermixed_args(args)


def _read(name: str) -> list[dict[str, str]]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read answers from {name}: {error}") from error
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append({"id": str(row["id"]), "answer": str(row["answer"])})
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{name}, line {number}: expected a JSON object with id and answer ({error})"
            ) from error
    if not rows:
        raise UserError(f"{name} holds no answers")
    return rows


def _tasks(env: Environment, wanted: set[str], search: int) -> dict[str, Task]:
    """Find tasks by id: held-out splits first, then the first train tasks."""
    found: dict[str, Task] = {}
    for split, limit in (("test", None), ("validation", None), ("train", search)):
        try:
            stream = env.tasks(split, 0)
        except UserError:
            continue
        for task in itertools.islice(stream, limit):
            if task.id in wanted:
                found[task.id] = task
        if len(found) == len(wanted):
            return found
    missing = sorted(wanted - found.keys())
    raise UserError(
        f"no task has the id {missing[0]!r} ({len(missing)} unknown); see `rltrain tasks`"
    )


@contextmanager
def _judge_endpoint(config: RunConfig, *, wanted: bool) -> Iterator[str | None]:
    """The configured endpoint, or our own judge served for as long as it is needed."""
    if not wanted or not config.uses_judge or not config.rewards.judge.own_server:
        yield None
        return
    from rltrain.launch.models import judge_folder
    from rltrain.launch.servers import serving
    from rltrain.warmup.cache import is_complete

    folder = judge_folder(config)
    if not is_complete(Path(folder)):
        raise UserError(
            "the embedded judge is not built yet; run `rltrain train` once, or pass --no-judge, or "
            "set rewards.judge.endpoint=…"
        )

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    with (
        tempfile.TemporaryDirectory() as logs,
        serving(config, None, folder, Path(logs), say) as servers,
    ):
        yield servers.judge_endpoint


async def _score(
    config: RunConfig,
    env: Environment,
    answers: list[dict[str, str]],
    known: dict[str, Task],
    endpoint: str | None,
    use_judge: bool,
) -> None:
    judge = build.judge(config, env, endpoint) if use_judge else None
    reward = build.rewarder(config, env, judge)
    try:
        for row in answers:
            line = await _line(reward, known[row["id"]], row["answer"])
            print(to_json(line))  # an answer may hold what UTF-8 cannot
    finally:
        if judge:
            await judge.aclose()


async def _line(reward: GatedReward, task: Task, answer: str) -> dict[str, Any]:
    turn = Turn(
        prompt_ids=(), completion_ids=(), logprobs=(), version=0, stop_reason="stop", text=answer
    )
    episode = Episode(task=task, sample=0, turns=(turn,), answer=answer, ended="answered")
    try:
        return {"id": task.id, "answer": answer, **shown(await reward.judge_episode(episode))}
    except SystemFault as fault:  # not a score: the line says so
        return {"id": task.id, "answer": answer, "fault": fault.kind, "detail": str(fault)}


def shown(result: Screened) -> dict[str, Any]:
    """Verdicts, flags, reward and truth as plain JSON values."""
    return {
        "reward": result.reward,
        "truth": result.judged.truth,
        "canonical": result.judged.canonical,
        "gates": [
            {"gate": v.gate, "passed": v.passed, "score": v.score, "reason": v.reason}
            for v in result.judged.verdicts
        ],
        "flags": [
            {"detector": f.detector, "evidence": f.evidence, "action": f.action}
            for f in result.flags
        ],
    }
