"""Two kinds of failure that never mix.

A policy that is wrong earns a score. A system that is broken raises one of these: it is retried,
then the sibling is dropped, counted and shown. Nothing here ever becomes a reward.
"""

from __future__ import annotations


class RltrainError(Exception):
    """Base of every error raised on purpose; its text is one sentence that says what to do."""


class UserError(RltrainError):
    """Something the user can put right (config, paths, ports). Exit code 2."""


class SystemFault(RltrainError):
    """A part of the system failed while serving a rollout. Retried, then the sibling is dropped."""

    kind = "system"


class EngineFault(SystemFault):
    """The inference engine refused, died, timed out or answered nonsense."""

    kind = "engine"


class JudgeFault(SystemFault):
    """The judge was unreachable, timed out, or gave no usable verdict. Never a score of 0."""

    kind = "judge"


class EnvironmentFault(SystemFault):
    """The environment's own backend failed (database, sandbox, tool server)."""

    kind = "environment"


class SyncError(RltrainError):
    """The engine does not serve the weights that were pushed. Stops the run."""


class MismatchError(RltrainError):
    """The engine computes another policy than the learner. Stops the run, with a checkpoint."""


class ChildDied(RltrainError):
    """A process of the run ended before its work was done. Stops the run."""
