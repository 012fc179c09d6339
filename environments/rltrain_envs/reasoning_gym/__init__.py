"""Procedural reasoning tasks with scorers, from the package reasoning-gym; see README.md."""

from rltrain_envs.reasoning_gym.env import ReasoningGym, build

__all__ = ["ReasoningGym", "build"]
