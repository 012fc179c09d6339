"""When a process of a run counts as dead, and how often it is started again."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveFloat

from rltrain.config.base import Section


class SuperviseConfig(Section):
    """A process that dies or stands still is started again and goes on; too often, and the run
    stops."""

    max_restarts: NonNegativeInt = 5
    """Restarts of one process within `window_s`; one more stops the run. 0 restarts nothing."""
    window_s: PositiveFloat = 600.0
    """Seconds after which a restart is forgotten."""
    stall_s: PositiveFloat = 60.0
    """Seconds without a sign of life after which a process is killed and counts as dead."""
    backoff_s: PositiveFloat = 0.5
    """Wait before the first restart; it doubles with every further one within `window_s`."""
    backoff_max_s: PositiveFloat = 30.0
    """Longest wait before a restart."""
