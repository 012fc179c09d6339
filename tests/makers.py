"""Small real things that tests are made of: episodes, groups, samples, a tiny random policy."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from rltrain.types import (
    Episode,
    Fault,
    Flag,
    Group,
    Judged,
    Message,
    Sample,
    Screened,
    Task,
    Turn,
)

VOCAB = 48
DROP = Flag(detector="opt_out", evidence="match all", action="drop")


def make_task(number: int = 0) -> Task:
    prompt = (Message(role="user", content=f"task {number}"),)
    return Task(id=f"t{number}", env="fake", prompt=prompt, split="train")


def make_turn(
    prompt_ids: Sequence[int] = (5, 6, 7),
    completion_ids: Sequence[int] = (8, 9),
    logprobs: Sequence[float] | None = None,
    version: int = 0,
    stop_reason: str = "stop",
    text: str = "an answer",
) -> Turn:
    return Turn(
        prompt_ids=tuple(prompt_ids),
        completion_ids=tuple(completion_ids),
        logprobs=tuple(logprobs or [-1.0] * len(completion_ids)),
        version=version,
        stop_reason=stop_reason,
        text=text,
    )


def make_episode(
    turns: Sequence[Turn] = (make_turn(),), sample: int = 0, task: Task | None = None
) -> Episode:
    return Episode(
        task=task or make_task(),
        sample=sample,
        turns=tuple(turns),
        answer=turns[-1].text,
        ended="answered",
    )


def make_member(reward: float, *, flags: tuple[Flag, ...] = (), episode: Episode) -> Screened:
    judged = Judged(episode=episode, verdicts=(), reward=reward, truth=None)
    return Screened(judged=judged, flags=flags, reward=reward)


def make_group(
    rewards: Sequence[float],
    *,
    lease: int = 0,
    dropped: Sequence[int] = (),
    lost: Sequence[int] = (),
    version: int = 0,
) -> Group:
    """Siblings with these rewards; those in `dropped` carry a flag, those in `lost` are faults."""
    task = make_task(lease)
    members = tuple(
        make_member(
            reward,
            flags=(DROP,) if i in dropped else (),
            episode=make_episode([make_turn(version=version)], i, task),
        )
        for i, reward in enumerate(rewards)
        if i not in lost
    )
    faults = tuple(Fault(sample=i, kind="engine", detail="gone") for i in lost)
    return Group(lease=lease, task=task, members=members, faults=faults)


def make_sample(
    prompt: Sequence[int],
    completion: Sequence[int],
    *,
    advantage: float = 1.0,
    family: int = 0,
    rng: random.Random | None = None,
) -> Sample:
    """One single-turn sample; each token's behaviour log-probability is different if `rng`."""
    rng = rng or random.Random(0)
    ids = (*prompt, *completion)
    mask = [False] * len(prompt) + [True] * len(completion)
    return Sample(
        ids=ids,
        loss_mask=tuple(mask),
        logprobs=tuple(rng.uniform(-4, -3) if m else 0.0 for m in mask),
        advantages=tuple(advantage if m else 0.0 for m in mask),
        version=0,
        prefix=len(prompt),
        family=family,
    )


def random_families(seed: int = 0) -> list[Sample]:
    """Three families with odd lengths; a completion of a single token; one of two turns."""
    rng = random.Random(seed)

    def draw(count: int) -> list[int]:
        return [rng.randrange(1, VOCAB) for _ in range(count)]

    samples: list[Sample] = []
    for family, (prefix, lengths) in enumerate([(5, (3, 1, 7)), (1, (4, 4)), (9, (1, 1, 2, 5))]):
        prompt = draw(prefix)
        for length in lengths:
            advantage = rng.choice([-1, 1]) * rng.uniform(0.3, 1)
            samples.append(
                make_sample(prompt, draw(length), advantage=advantage, family=family, rng=rng)
            )
    last = samples[-1]
    added = draw(3)  # what the environment said, then a second turn of two tokens
    samples[-1] = Sample(
        ids=(*last.ids, *added, *draw(2)),
        loss_mask=(*last.loss_mask, False, False, False, True, True),
        logprobs=(*last.logprobs, 0.0, 0.0, 0.0, -3.25, -3.75),
        advantages=(*last.advantages, 0.0, 0.0, 0.0, 0.5, 0.5),
        version=0,
        prefix=last.prefix,
        family=last.family,
    )
    return samples


def without_logprob(sample: Sample, position: int) -> Sample:
    """The same sample as if the engine had not said how probable one token was."""
    values = list(sample.logprobs)
    values[position] = math.nan
    return Sample(
        ids=sample.ids,
        loss_mask=sample.loss_mask,
        logprobs=tuple(values),
        advantages=sample.advantages,
        version=sample.version,
        prefix=sample.prefix,
        family=sample.family,
    )


def tiny_policy(seed: int = 0, attention: str = "eager") -> Qwen3ForCausalLM:
    """A random Qwen3 of two layers, wide enough that tokens look at one another."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=16,
            max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.2,
            eos_token_id=1, pad_token_id=0, bos_token_id=None, use_cache=False,
            attn_implementation=attention,
        )
    )  # fmt: skip
