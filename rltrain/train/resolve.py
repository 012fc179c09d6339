"""From the config of a run to its learner."""

from __future__ import annotations

from typing import Any

from rltrain.config.run import RunConfig
from rltrain.train.actor_critic import ActorCriticLearner
from rltrain.train.learner import PolicyLearner
from rltrain.train.objective import Objective


def learner_of(config: RunConfig, model: Any) -> PolicyLearner:
    """The learner of a policy; one with a critic if `algo.critic` is given.

    Raises `UserError` for arguments that the loss or the correction does not have."""
    objective = Objective.from_config(config.algo, config.rollout.temperature)
    if config.algo.critic is None:
        return PolicyLearner(model, objective, config.train, config.max_steps, config.precision)
    critic = config.algo.critic
    return ActorCriticLearner(
        model, objective, config.train, config.max_steps, critic, config.precision
    )
