"""What an answer earns: gates in order, the judge, and what each detector's finding does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from rltrain.config.base import Section
from rltrain.config.judge import JudgeConfig as JudgeConfig
from rltrain.config.judge import TinyJudgeConfig as TinyJudgeConfig
from rltrain.config.sandbox import SandboxConfig

Action = Literal["keep", "zero", "drop"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
ImportPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]

KEYS: Mapping[str, frozenset[str]] = {
    "screen": frozenset(),
    "judge": frozenset({"sees"}),
    "judge_pairwise": frozenset({"sees"}),
    "reward_model": frozenset({"sees"}),
    "json_schema": frozenset({"name", "sees", "schema", "extract"}),
    "pydantic": frozenset({"name", "sees", "model", "extract"}),
    "function": frozenset(
        {"name", "sees", "function", "args", "range", "pass_at", "conversational"}
    ),
    "program": frozenset({"name", "sees", "tests", "extract", "pass_at", "sandbox"}),
}
"""Keys of the checks that rltrain brings itself, beside those that every stage has."""
NEEDED = {"json_schema": "schema", "pydantic": "model", "function": "function"}
OWN = frozenset[str]().union(*KEYS.values())


class StageConfig(Section):
    """One gate. Later gates are evaluated only if this one passes. See docs/rewards.md."""

    # The file says `schema`; in Python that is an old method of every pydantic model.
    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    check: str
    """A check of the environment by name, or one of rltrain's own: `screen` (detectors), `judge`,
    `judge_pairwise`, `reward_model`, `json_schema`, `pydantic`, `function` (as TRL's) or
    `program`."""
    name: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    """How verdicts and metrics call this gate; None takes `check`."""
    on_fail: float = Field(default=0.0, ge=0, le=1)
    """Reward when this is the gate that fails. Any floor is itself a target for gaming."""
    band: tuple[Finite, Finite] | None = None
    """[low, high] into which this gate's score is mapped if it decides what a passing answer earns.
    A band anywhere makes the order strict: every outcome pays more than the worse ones."""
    cost: Annotated[NonNegativeFloat, Field(allow_inf_nan=False)] = 0.0
    """Of asking once, in a unit of your choosing; what the gates before it save is measured."""
    timeout_s: Annotated[PositiveFloat, Field(allow_inf_nan=False)] | None = None
    """A check that takes longer did not answer: a system fault, never a score."""
    cache: bool = False
    """Remember verdicts by task and by the answer as the check saw it. Faults are not remembered.
    For checks that always say the same of the same answer."""
    validator_version: str | None = None
    """Recorded with every verdict in place of the check's own version."""
    sees: Literal["raw", "canonical"] | None = None
    """What the check is shown: the answer as it was written, or the environment's canonical form of
    it. None: canonical for `judge` and `reward_model`, else raw."""
    schema_: dict[str, Any] | str | None = Field(default=None, alias="schema")
    """`json_schema`: the schema, or the file that holds it."""
    extract: Literal["text", "block"] = "text"
    """Where the JSON or the program is: `text` is the whole answer, `block` is its one fenced
    block (```)."""
    model: ImportPath | None = None
    """`pydantic`: `package.module:Model`."""
    function: ImportPath | None = None
    """`function`: `package.module:function`, with the signature of TRL's reward functions."""
    args: dict[str, Any] = {}
    """`function`: further keyword arguments."""
    range: tuple[Finite, Finite] = (0.0, 1.0)
    """`function`: the least and the greatest reward that it gives, mapped onto [0, 1]."""
    conversational: bool = True
    """`function`: pass lists of messages; false passes plain text."""
    tests: str = "tests"
    """`program`: key of the task's data with a list of {stdin, stdout}. The answer is run on each;
    its score is the share of right outputs."""
    pass_at: float = Field(default=0.5, ge=0, le=1)
    """`function`, `program`: least score (after `range`) that passes."""
    sandbox: SandboxConfig = SandboxConfig()
    """`program`: what the answer may use."""

    @property
    def gate(self) -> str:
        """Name in verdicts and metrics."""
        return self.name or self.check

    @model_serializer(mode="wrap")
    def _what_was_said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A written config shows what was chosen, not every key of every other kind of check."""
        said = {"check", "on_fail", *self._said()}
        return {key: value for key, value in dump(self).items() if key in said}

    def _said(self) -> set[str]:
        """Keys whose value is not the default."""
        fields = StageConfig.model_fields.items()
        return {f.alias or name for name, f in fields if getattr(self, name) != f.default}

    @model_validator(mode="after")
    def _keys_fit(self) -> StageConfig:
        """Only the keys that this kind of check reads, so that none is ignored silently."""
        odd = sorted((OWN & self._said()) - KEYS.get(self.check, frozenset({"sees"})))
        if odd:
            raise ValueError(f"{odd[0]!r} means nothing for check {self.check!r}; leave it out")
        needed = NEEDED.get(self.check)
        if needed and needed not in self._said():
            raise ValueError(f"check {self.check!r} needs {needed!r}")
        return self

    @model_validator(mode="after")
    def _bounds_ascend(self) -> StageConfig:
        if self.band is not None and not 0.0 <= self.band[0] <= self.band[1] <= 1.0:
            raise ValueError(f"band must be [low, high], 0 <= low <= high <= 1, not {self.band}")
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range must be [low, high] with low < high, not {self.range}")
        return self


class BonusConfig(Section):
    """A small reward for how a right answer was given, inside the band of passing answers."""

    weight: float = Field(gt=0, lt=1)
    """Share of the passing band that it decides."""
    function: ImportPath | None = None
    """`package.module:function` of a bonus of your own; None takes rltrain's of this name."""
    args: dict[str, Any] = {}


class LintConfig(Section):
    """What `rltrain lint-rewards` and the start of every run refuse."""

    max_constant: float = Field(default=0.25, ge=0, le=1)
    """Greatest mean reward over tasks that an answer may have which does not look at the task."""
    tasks: PositiveInt = 64
    """Tasks on which that is measured (a run's start takes 16 of them, and a second at most)."""
    free_text: bool = False
    """The answers are free text, so that a judge has to read what the policy wrote."""


class RewardModelConfig(Section):
    """A trained reward model (`algo=reward_model`) as a gate."""

    folder: str | None = None
    """Where it was exported to: `runs/NAME/model`. Needed if `reward_model` is a stage."""
    pass_at: float = Field(default=0.0, ge=0, le=1)
    """Least score that passes; at 0 every answer passes and its score is what it earns."""


class RewardsConfig(Section):
    """Ordered gates; the last gate's score is the reward when all pass."""

    stages: tuple[StageConfig, ...] = Field(min_length=1)
    bonus: dict[str, BonusConfig] = {}
    """By name; paid to answers that pass every gate with full score."""
    judge: JudgeConfig = JudgeConfig()
    reward_model: RewardModelConfig = RewardModelConfig()
    lint: LintConfig = LintConfig()

    @model_validator(mode="after")
    def _bonuses_leave_room(self) -> RewardsConfig:
        total = sum(part.weight for part in self.bonus.values())
        if total >= 1:
            raise ValueError(f"the weights of bonus sum to {total:g}; they must sum to less than 1")
        return self


class DetectorConfig(Section):
    """What a finding of one detector does to the rollout."""

    action: Action = "zero"


class DetectorsConfig(Section):
    """Detectors per rollout (by name) and alarms over the whole run."""

    rollout: dict[str, DetectorConfig] = {}
    alarms: tuple[str, ...] = ("output_collapse", "reward_truth_divergence", "length_exploitation")
    """Alarms over the whole run that are on."""
    collapse_share: float = Field(default=0.2, gt=0, le=1)
    """Share of different tasks that get one and the same answer from which on it is a collapse."""
    divergence_window: PositiveInt = 20
    """Steps over which reward and truth are compared."""
