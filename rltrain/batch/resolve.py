"""What a config says about advantages and long answers, with the names and budgets of its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rltrain.algo.advantages import ALONE, GREEDY, Advantage, bind
from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.algo.shaping import Overlong
from rltrain.batch.packing import Batch, make_batch
from rltrain.batch.samples import OVERLONG, batch_samples
from rltrain.config.run import RunConfig
from rltrain.errors import UserError
from rltrain.types import Group


def overlong_of(config: RunConfig) -> Overlong:
    """Raises `UserError` if the zone of the penalty is longer than an answer may be."""
    given = config.algo.overlong
    horizon = given.horizon or config.rollout.max_new_tokens * config.rollout.max_turns
    if given.cache > horizon:
        raise UserError(
            f"config algo.overlong.cache ({given.cache}) must not be larger than the longest "
            f"answer ({horizon} tokens)"
        )
    return Overlong(filter=given.filter, horizon=horizon, cache=given.cache, penalty=given.penalty)


def advantage_of(config: RunConfig) -> Advantage:
    """The advantage with its arguments. Raises `UserError` for an argument it does not have."""
    components = [stage.check for stage in config.rewards.stages]
    if overlong_of(config).cache:
        components.append(OVERLONG)
    try:
        return bind(config.algo.advantage, config.algo.advantage_args, components)
    except ValueError as error:
        raise UserError(f"config algo.advantage_args: {error}") from error


def fewest_of(config: RunConfig) -> int:
    """Siblings without which a group says nothing: 2, or 1 where the baseline is not the group's.

    Raises `UserError` if no group is that large."""
    fewest = 1 if config.algo.advantage in ALONE else 2
    if config.rollout.group_size < fewest:
        raise UserError(
            f"config rollout.group_size ({config.rollout.group_size}) must be at least {fewest}: "
            f"algo.advantage={config.algo.advantage} compares siblings"
        )
    return fewest


def replacements_of(config: RunConfig) -> int:
    """Groups that dynamic sampling may replace for one step; 0 where it is off.

    Raises `UserError` if a group has nothing to compare: all would be replaced."""
    if not config.rollout.dynamic_sampling:
        return 0
    if config.rollout.group_size < 2 and config.algo.advantage not in GREEDY:
        raise UserError(
            "config rollout.dynamic_sampling compares siblings; rollout.group_size must be at "
            "least 2"
        )
    return max(1, round(config.rollout.max_resampled * config.rollout.groups_per_step))


def batcher(config: RunConfig, compute_all: bool) -> Callable[[Sequence[Group]], Batch]:
    """What makes the groups of a step into its batch; `compute_all` as in `make_batch`."""
    algo, rollout = config.algo, config.rollout
    advantage, overlong, fewest = advantage_of(config), overlong_of(config), fewest_of(config)

    def batch(groups: Sequence[Group]) -> Batch:
        return make_batch(
            batch_samples(groups, advantage, overlong, fewest),
            AGGREGATIONS[algo.aggregation],
            horizon=rollout.max_new_tokens * rollout.max_turns,
            shared_prefix=config.train.packing == "shared_prefix",
            limit=config.train.micro_batch_tokens,
            compute_all=compute_all,
        )

    return batch
