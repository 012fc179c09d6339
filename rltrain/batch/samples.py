"""Groups -> Samples: what is left when only numbers matter.

    groups -> siblings with a vote -> GroupRewards -> advantage, over the whole step -> Samples

A sibling has no vote if the system lost it, a detector dropped it, or the overlong filter leaves
truncated answers out. A group with fewer than two voters says nothing and gives no samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rltrain.algo.advantages import Advantage, GroupRewards
from rltrain.algo.shaping import Overlong
from rltrain.types import Episode, Group, Sample, Screened

NO_SHAPING = Overlong()
OVERLONG, REWARD = "overlong", "reward"
"""Components besides the gates: the length penalty, and the whole reward where no gate spoke."""


def live_members(group: Group) -> list[Screened]:
    """Siblings that the system did not lose and no detector dropped."""
    return [member for member in group.members if not member.dropped]


def is_voter(member: Screened, filter_truncated: bool = False) -> bool:
    """Whether a sibling is trained on and has a vote in the baseline.

    `filter_truncated` leaves out answers cut by the token budget, whose reward says more of the
    budget than of the answer (overlong filtering, DAPO, arXiv 2503.14476, sec. 3.4). TRL only masks
    their tokens and lets the reward vote; here what is not trained on never votes."""
    cut = filter_truncated and member.judged.episode.ended == "truncated"
    return not (member.dropped or cut)


def voters(group: Group, filter_truncated: bool = False) -> list[Screened]:
    """The siblings of a group that are trained on, in order."""
    return [member for member in group.members if is_voter(member, filter_truncated)]


def sampled_tokens(episode: Episode) -> int:
    """Tokens that the policy sampled in all turns."""
    return sum(len(turn.completion_ids) for turn in episode.turns)


def components(members: Sequence[Screened]) -> dict[str, tuple[float, ...]]:
    """The reward in parts: for each gate that any of these siblings reached, the score of those
    that passed it and 0 for those that failed it or never got there.

    A stage's floor (`on_fail`) is no part of it. A finding that caps the reward (`zero`) caps every
    component too, so that a caught hack is not paid gate by gate. Without any gate the one
    component is the reward."""
    gates = list(dict.fromkeys(v.gate for m in members for v in m.judged.verdicts))
    if not gates:
        return {REWARD: tuple(member.reward for member in members)}
    return {gate: tuple(_component(member, gate) for member in members) for gate in gates}


def _component(member: Screened, gate: str) -> float:
    scores = [v.score for v in member.judged.verdicts if v.gate == gate and v.passed]
    score = scores[0] if scores else 0.0
    zeroed = any(flag.action == "zero" for flag in member.flags)
    return min(score, member.reward) if zeroed else score


def group_rewards(group: Group, overlong: Overlong = NO_SHAPING) -> GroupRewards:
    """What the voters of a group earned, length penalty included. The greedy answer, where there is
    one, is shaped alike; being truncated does not cost it its place, as it is not trained on."""
    members = voters(group, overlong.filter)
    lengths = [sampled_tokens(member.judged.episode) for member in members]
    penalties = tuple(overlong.shaping(length) for length in lengths)
    parts = components(members)
    if overlong.cache:
        parts[OVERLONG] = penalties
    return GroupRewards(
        rewards=tuple(m.reward + p for m, p in zip(members, penalties, strict=True)),
        lengths=tuple(max(length, 1) for length in lengths),
        components=parts,
        greedy=_greedy_reward(group, overlong),
    )


def _greedy_reward(group: Group, overlong: Overlong) -> float | None:
    if group.greedy is None:
        return None
    length = sampled_tokens(group.greedy.judged.episode)
    return group.greedy.reward + overlong.shaping(length)


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


def _versions(episode: Episode) -> tuple[int, ...]:
    """Policy version of each token: what stands before a turn's completion takes that turn's."""
    versions: list[int] = []
    for turn in episode.turns:
        end = len(turn.prompt_ids) + len(turn.completion_ids)
        versions += [turn.version] * (end - len(versions))
    return tuple(versions)


def member_sample(member: Screened, advantage: float, family: int) -> Sample:
    """One sibling as a sequence whose trained tokens all carry its advantage."""
    episode = member.judged.episode
    ids, mask, logprobs = episode_tokens(episode)
    return Sample(
        ids=tuple(ids),
        loss_mask=tuple(mask),
        logprobs=tuple(logprobs),
        advantages=tuple(advantage if m else 0.0 for m in mask),
        version=episode.version,
        versions=_versions(episode),
        prefix=len(episode.turns[0].prompt_ids),
        family=family,
    )


def batch_samples(
    groups: Sequence[Group],
    advantage: Advantage,
    overlong: Overlong = NO_SHAPING,
    fewest: int = 2,
) -> list[Sample]:
    """Samples of all groups of a step, in order; `family` is the position of the group.

    A group with fewer than `fewest` voters gives none: a single sibling cannot say whether it was
    better than expected, unless the advantage's baseline is not the group's (`resolve.fewest_of`).
    """
    voting = [(i, g) for i, g in enumerate(groups) if len(voters(g, overlong.filter)) >= fewest]
    values = advantage([group_rewards(group, overlong) for _, group in voting])
    return [
        member_sample(member, value, family)
        for (family, group), row in zip(voting, values, strict=True)
        for member, value in zip(voters(group, overlong.filter), row, strict=True)
    ]


def overlong_metrics(groups: Sequence[Group], overlong: Overlong) -> dict[str, float]:
    """What shaping and filter did in a step; empty where both are off.

    `overlong/penalty` is the mean added to the rewards of the voters, `overlong/filtered` the
    number of answers left out."""
    if not (overlong.cache or overlong.filter):
        return {}
    live = sum(len(live_members(group)) for group in groups)
    lengths = [
        sampled_tokens(member.judged.episode)
        for group in groups
        for member in voters(group, overlong.filter)
    ]
    metrics = {"overlong/filtered": float(live - len(lengths))}
    if lengths:
        metrics["overlong/penalty"] = fmean(overlong.shaping(length) for length in lengths)
    return metrics


__all__ = [
    "batch_samples", "components", "episode_tokens", "group_rewards",
    "is_voter", "live_members", "member_sample", "overlong_metrics", "sampled_tokens", "voters",
]  # fmt: skip
