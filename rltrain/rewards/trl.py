"""Any TRL reward function as a gate.

TRL calls `f(prompts, completions, **columns) -> list[float | None]` on a batch; a gate looks at one
answer, so the batch has size one. Columns are the task's `data` and `meta`, as TRL's are those of
the data set. See "Using a custom reward function" in TRL's documentation of `GRPOTrainer`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from rltrain.errors import EnvironmentFault, UserError
from rltrain.rewards.verdicts import NOT_APPLICABLE
from rltrain.types import Task, Verdict

RewardFunction = Callable[..., Any]
"""`(prompts, completions, **columns) -> list[float | None]`, or a coroutine of it."""


class TRLCheck:
    """A `Check` around one TRL reward function.

    The reward is mapped linearly from [low, high] onto [0, 1]. `None` means in TRL "this function
    has nothing to say about this row": the gate then passes and the score of the gate before it is
    carried on unchanged. NaN is treated as a broken function, not as None.

    A synchronous function runs in the event loop's thread, as it does in TRL: many (math_verify)
    set alarms, which only the main thread may do. Keep it short, or make it `async`.
    """

    def __init__(
        self,
        function: RewardFunction,
        *,
        low: float = 0.0,
        high: float = 1.0,
        pass_at: float = 0.5,
        conversational: bool = True,
        version: str = "1",
    ) -> None:
        """
        Args:
            function: the TRL reward function.
            low, high: the range that the function promises.
            pass_at: the gate passes from this score on; after the mapping, in [0, 1].
            conversational: pass message lists, else the prompt's contents joined and plain text.
            version: recorded with every verdict.

        Raises `UserError` if the range is empty.
        """
        if not low < high:
            raise UserError(f"TRLCheck needs low < high; got {low} and {high}.")
        self.version = version
        self._function = function
        self._low, self._high, self._pass_at = low, high, pass_at
        self._conversational = conversational
        self._name = getattr(function, "__name__", type(function).__name__)

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Score one answer.

        Raises `UserError` for a reward outside [low, high], `EnvironmentFault` for NaN or a reply
        that is not one reward per completion.
        """
        rewards = self._function(**self._arguments(task, answer))
        if inspect.isawaitable(rewards):
            rewards = await rewards
        reward = self._single(rewards)
        if reward is None:
            return self._verdict(True, 0.0, f"{NOT_APPLICABLE}: {self._name} returned None")
        if not self._low <= reward <= self._high:
            raise UserError(
                f"TRL reward function {self._name!r} returned {reward:g}, outside of "
                f"[{self._low:g}, {self._high:g}]; give TRLCheck its true low and high."
            )
        score = (reward - self._low) / (self._high - self._low)
        return self._verdict(score >= self._pass_at, score, f"reward: {reward:g}")

    def _verdict(self, passed: bool, score: float, reason: str) -> Verdict:
        return Verdict(
            gate=self._name, passed=passed, score=score, reason=reason, version=self.version
        )

    def _arguments(self, task: Task, answer: str) -> dict[str, Any]:
        """What TRL passes, except for token ids and the trainer's state, which no gate may see."""
        columns = {key: [value] for key, value in {**task.meta, **task.data}.items()}
        prompt: Any = [{"role": m.role, "content": m.content} for m in task.prompt]
        completion: Any = [{"role": "assistant", "content": answer}]
        if not self._conversational:
            prompt, completion = "\n".join(m.content for m in task.prompt), answer
        return {
            **columns,
            "prompts": [prompt],
            "completions": [completion],
            "trainer_state": None,
            "log_extra": _ignore,
            "log_metric": _ignore,
        }

    def _single(self, rewards: Any) -> float | None:
        if not isinstance(rewards, Sequence) or isinstance(rewards, str) or len(rewards) != 1:
            raise EnvironmentFault(
                f"TRL reward function {self._name!r} must return a list of one reward for one "
                f"completion; it returned {rewards!r:.80}."
            )
        reward = rewards[0]
        if reward is None:
            return None
        number = float(reward)
        if not math.isfinite(number):
            raise EnvironmentFault(f"TRL reward function {self._name!r} returned {number}.")
        return number


def _ignore(*_: Any, **__: Any) -> None:
    """Stands in for the logging hooks that TRL passes; gates keep their own records."""
