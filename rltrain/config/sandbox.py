"""Limits of a sandbox for untrusted answers; an environment takes them among its `args`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from rltrain.config.base import Section

Protection = Literal["user", "processes", "network", "files"]


class SandboxConfig(Section):
    """What a program that a policy wrote may use, and which walls there must be around it."""

    time_s: PositiveFloat = 5.0
    """Wall-clock seconds; CPU seconds are bounded by it too."""
    memory_mb: PositiveInt = Field(default=256, ge=32)
    """Address space of one process."""
    files_mb: PositiveInt = 16
    """All files together (one file, where the wall `files` is missing)."""
    network: bool = False
    require: tuple[Protection, ...] = ()
    """Walls without which nothing is run; see `rltrain.sandbox`."""
