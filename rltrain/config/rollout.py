"""Where tasks come from, and how episodes are sampled."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from rltrain.config.base import Section


class EnvironmentConfig(Section):
    """A function that builds an environment, by import path: yours needs no fork of rltrain."""

    entry: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`package.module:function`; called with `args`, returns a `protocols.Environment`."""
    args: dict[str, Any] = {}


class RolloutConfig(Section):
    """How many episodes, how stale they may be, and what happens when the system fails one."""

    group_size: int = Field(default=8, ge=1)
    """Samples per task; the group whose mean is the baseline. 1 is for advantages without one."""
    groups_per_step: PositiveInt = 16
    """Tasks per optimizer step."""
    max_lag: NonNegativeInt = 1
    """Bound on policy versions between sampling and training. 0 is synchronous."""
    temperature: PositiveFloat = 1.0
    max_new_tokens: PositiveInt = 64
    """Token budget of one turn."""
    max_turns: PositiveInt = 1
    workers: PositiveInt = 1
    """Rollout worker processes."""
    concurrency: PositiveInt = 32
    """Groups that one worker keeps in flight."""
    retries: NonNegativeInt = 3
    """Tries after the first before a sibling counts as lost to the system."""
    timeout_s: PositiveFloat = 120.0
    """Bound on one request to the engine."""
    patience_s: NonNegativeFloat = 180.0
    """How long a request, or a push, waits for an engine that is out of reach or has no proven
    weights, before it is lost to the system. Tries that fail meanwhile do not count."""
    record: bool = False
    """Keep every group in the ledger until the end, so that the run can be replayed."""
    replay: str | None = None
    """Run directory whose recorded rollouts are trained on again, without engines or workers."""
    max_fault_rate: float = Field(default=0.5, gt=0, le=1)
    """Share of lost siblings over the last ten steps above which the run pauses and says why."""
    pause_s: NonNegativeFloat = 30.0
    """Seconds without new rollouts in such a pause."""
    max_pauses: NonNegativeInt = 5
    """Pauses in a row, without ten good steps in between, after which the run stops."""
    dynamic_sampling: bool = False
    """Replace groups whose siblings all earned the same by other tasks (DAPO, arXiv 2503.14476)."""
    max_resampled: PositiveFloat = 3.0
    """Groups that dynamic sampling may replace for one step, as a multiple of `groups_per_step`;
    after that the step uses what there is."""


class EngineConfig(Section):
    """The vLLM server that samples from the policy."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` takes what `precision` says, so that both sides compute the same policy; anything
    else needs precision.allow_mismatch=true."""
    host: str = "127.0.0.1"
    port: NonNegativeInt = 0
    """0 lets the system choose a free one."""
    threads: PositiveInt = 1
    """CPU threads (OMP_NUM_THREADS); without effect on a GPU."""
    kv_cache_mb: PositiveInt = 256
    """CPU only: memory for the key-value cache."""
    gpu_memory_utilization: float = Field(default=0.5, gt=0, le=1)
    max_num_seqs: PositiveInt = 256
    eager: bool = True
    """Skip compilation and CUDA graphs: faster to start, and on the CPU not slower to run."""
    start_timeout_s: PositiveFloat = 300.0
    extra_args: tuple[str, ...] = ()
    """Passed on to the server as they are."""


class SyncConfig(Section):
    """How weights reach the engine, and how strictly their arrival is proven."""

    probe_tolerance: NonNegativeFloat | None = None
    """Largest mean |log-probability difference| (nats) on the probe sequence, learner against
    engine, after a push. None takes 1e-3 for float32 and 5e-2 for half precisions."""
    probe_every: PositiveInt = 1
    """Pushes between probes; digests of what was transferred are compared at every push."""
    folder: str | None = None
    """Where weights pass through; None takes /dev/shm, or the run directory if there is none."""
