"""A small policy on disk and a run with rollouts, written by the project's own writers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rltrain.config import RunConfig
from rltrain.config.compose import load_config
from rltrain.rollout.render import Renderer
from rltrain.rundir import RunDir, create_run
from rltrain.track import read_rollouts, rollouts_path, write_rollouts
from rltrain.types import (
    Episode,
    Fault,
    Flag,
    Group,
    Judged,
    Message,
    Screened,
    Task,
    Turn,
    Verdict,
)  # fmt: skip
from rltrain.warmup.sft import Shape, new_model
from rltrain.warmup.tokenizer import train_tokenizer

GATES = ("format", "schema", "graded")
RIGHT, WRONG = "tag = 'vip'", "I cannot say"
ASKED = [f"customers number {number} please" for number in range(40)]


def make_policy(folder: Path) -> Path:
    """A random Qwen3 of one layer with its own tokenizer, as a hub would hand it out."""
    tokenizer = train_tokenizer([*ASKED, RIGHT, WRONG, "tag = 'new'"], 320, 128)
    shape = Shape(hidden_size=64, heads=2, layers=1, max_length=128)  # heads of 32: vLLM's least
    new_model(tokenizer, shape, 0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def member(
    text: str,
    reward: float,
    *,
    sample: int = 0,
    stopped: str | None = None,
    action: str | None = None,
    number: int = 0,
    renderer: Renderer | None = None,
    **extra: Any,
) -> Screened:
    """One judged rollout. stopped: the gate that it failed. action: of the flag that it has.
    extra: `version`, `turns`, `stop_reason`."""
    prompt = (Message(role="user", content=ASKED[number]),)
    task = Task(id=f"t{number}", env="fake", prompt=prompt, split="train")
    ids: tuple[int, ...] = (7, 8)
    asked: tuple[int, ...] = (5, 6)
    if renderer:
        ids = (*renderer.tokenizer.encode(text, add_special_tokens=False), renderer.stop_ids[0])
        asked = tuple(renderer.prompt(prompt))
    turn = Turn(
        prompt_ids=asked,
        completion_ids=ids,
        logprobs=(-1.0,) * len(ids),
        version=extra.get("version", 0),
        stop_reason=extra.get("stop_reason", "stop"),
        text=text,
    )
    verdicts = []
    for gate in GATES:
        passed = gate != stopped
        verdicts.append(Verdict(gate=gate, passed=passed, score=float(passed)))
        if not passed:
            break
    episode = Episode(
        task=task,
        sample=sample,
        turns=(turn,) * extra.get("turns", 1),
        answer=text,
        ended="answered",
    )
    judged = Judged(
        episode=episode,
        verdicts=tuple(verdicts),
        reward=reward,
        truth=float(reward == 1),
        canonical=None if stopped == "format" else text.upper(),
    )
    flags = (Flag(detector="opt_out", evidence="…", action=action),) if action else ()
    return Screened(judged=judged, flags=flags, reward=reward)


def group(members: Sequence[Screened], lease: int = 0, lost: int = 0) -> Group:
    faults = tuple(Fault(sample=90 + i, kind="engine", detail="gone") for i in range(lost))
    task = members[0].judged.episode.task
    return Group(lease=lease, task=task, members=tuple(members), faults=faults)


def stored(groups: Sequence[Group], folder: Path) -> list[dict[str, Any]]:
    """Rows as they come back from the store."""
    path = rollouts_path(folder, 1)
    write_rollouts(path, groups, step=1, version=0)
    return read_rollouts(path)


def lesson(renderer: Renderer | None = None) -> list[Group]:
    """Forty groups that all teach the same: the query is right, the refusal is wrong."""
    return [
        group(
            [
                member(RIGHT, 1.0, sample=0, number=number, renderer=renderer),
                member(
                    WRONG, 0.0, sample=1, number=number, renderer=renderer, stopped="schema"
                ),
            ],
            lease=number,
        )
        for number in range(len(ASKED))
    ]


def make_config(folder: Path, policy: Path, *overrides: str) -> RunConfig:
    return load_config(
        [
            "experiment=segments_cpu", "model=local", f"model.name={policy}",
            "model.max_length=128", f"runs_dir={folder}/runs", "track.wandb=disabled",
            "precision=fp32", "train.warmup_steps=0", "train.decay=constant",
            "train.lr=3e-3", "max_steps=6", "algo.batch_size=8", *overrides,
        ]
    )  # fmt: skip


def make_source(folder: Path, policy: Path) -> RunDir:
    """A run that has finished a step of `lesson`."""
    config = load_config(
        ["experiment=segments_cpu", f"runs_dir={folder}/runs", "name=source", "max_steps=1"]
    )
    run = create_run(config)
    write_rollouts(rollouts_path(run.path, 1), lesson(Renderer.load(policy)), step=1, version=0)
    return run
