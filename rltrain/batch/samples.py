"""Group -> Samples: what is left when only numbers matter."""

from __future__ import annotations

from collections.abc import Sequence

from rltrain.algo.advantages import Advantage
from rltrain.types import Episode, Group, Sample, Screened


def live_members(group: Group) -> list[Screened]:
    """Siblings with a vote: those that the system did not lose and no detector dropped."""
    return [member for member in group.members if not member.dropped]


def episode_tokens(episode: Episode) -> tuple[list[int], list[bool], list[float]]:
    """Ids, loss mask and behaviour log-probabilities of a whole episode, each of length T.

    Turns are append-only: a turn's prompt begins with everything before it, token for token. What
    the environment added between turns has mask False.

    Raises:
        ValueError: if a turn rewrote the history; such a run would train on text nobody sampled.
    """
    ids: list[int] = []
    mask: list[bool] = []
    logprobs: list[float] = []
    for number, turn in enumerate(episode.turns):
        if list(turn.prompt_ids[: len(ids)]) != ids:
            raise ValueError(f"turn {number} of task {episode.task.id} does not continue the ids")
        added = turn.prompt_ids[len(ids) :]
        ids += [*added, *turn.completion_ids]
        mask += [False] * len(added) + [True] * len(turn.completion_ids)
        logprobs += [0.0] * len(added) + list(turn.logprobs)
    return ids, mask, logprobs


def group_samples(group: Group, advantage: Advantage, family: int) -> list[Sample]:
    """One Sample per live sibling, with the group's advantages; empty if fewer than two live.

    A single sibling has no baseline, so it cannot say whether it was better than expected."""
    members = live_members(group)
    if len(members) < 2:
        return []
    samples = []
    for member, value in zip(members, advantage([m.reward for m in members]), strict=True):
        episode = member.judged.episode
        ids, mask, logprobs = episode_tokens(episode)
        samples.append(
            Sample(
                ids=tuple(ids),
                loss_mask=tuple(mask),
                logprobs=tuple(logprobs),
                advantages=tuple(value if m else 0.0 for m in mask),
                version=episode.version,
                prefix=len(episode.turns[0].prompt_ids),
                family=family,
            )
        )
    return samples


def batch_samples(groups: Sequence[Group], advantage: Advantage) -> list[Sample]:
    """Samples of all groups of a step, in order."""
    return [s for i, group in enumerate(groups) for s in group_samples(group, advantage, i)]
