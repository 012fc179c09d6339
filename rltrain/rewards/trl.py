"""Any TRL reward function as a gate.

TRL calls `f(prompts, completions, **columns) -> list[float | None]` on a batch; a gate looks at one
answer, so the batch has size one. Columns are the task's `data` and `meta`, as TRL's are those of
the data set. See "Using a custom reward function" in TRL's documentation of `GRPOTrainer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rltrain.algo.named import find
from rltrain.errors import EnvironmentFault, RltrainError, UserError
from rltrain.rewards.verdicts import NOT_APPLICABLE, raised
from rltrain.types import Task, Verdict

RewardFunction = Callable[..., Any]
"""`(prompts, completions, **columns) -> list[float | None]`, or a coroutine of it."""


class TRLCheck:
    """A `Check` around one TRL reward function.

    The reward is mapped linearly from [low, high] onto [0, 1]. `None` means in TRL "this function
    has nothing to say about this row": the gate then passes and the score of the gate before it is
    carried on unchanged. NaN is treated as a broken function, not as None.

    A synchronous function runs in the event loop's thread, as it does in TRL: many (math_verify)
    set alarms, which only the main thread may do. Keep it short, or make it `async`. With a
    deadline (`threaded`) it runs in a thread of its own, which is left behind when that passes.
    """

    threaded = False

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
        named = function.func if isinstance(function, functools.partial) else function
        self._name = getattr(named, "__name__", type(named).__name__)

    @classmethod
    def load(
        cls, path: str, args: Mapping[str, Any], *, threaded: bool = False, **settings: Any
    ) -> TRLCheck:
        """From `package.module:function` and further keyword arguments for it.

        Raises `UserError` if it cannot be loaded or called."""
        function = find("rewards.stages: function", path, {})
        if not callable(function):
            raise UserError(f"rewards.stages: {path} is no function")
        made = cls(functools.partial(function, **args) if args else function, **settings)
        made.threaded = threaded
        return made

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Score one answer.

        Raises `UserError` for a reward outside [low, high], `EnvironmentFault` naming the function
        for an exception in it, NaN, or a reply that is not one reward per completion.
        """
        reward = self._single(await self._ask(self._arguments(task, answer)))
        if reward is None:
            return self._verdict(True, 0.0, f"{NOT_APPLICABLE}: {self._name} returned None")
        if not self._low <= reward <= self._high:
            raise UserError(
                f"TRL reward function {self._name!r} returned {reward:g}, outside of "
                f"[{self._low:g}, {self._high:g}]; give its true `range`."
            )
        score = (reward - self._low) / (self._high - self._low)
        return self._verdict(score >= self._pass_at, score, f"reward: {reward:g}")

    async def _ask(self, arguments: Mapping[str, Any]) -> Any:
        given = self._function.keywords if isinstance(self._function, functools.partial) else {}
        call = functools.partial(self._function, **{**arguments, **given})  # not a task's column
        try:
            rewards = await in_thread(call) if self.threaded else call()
            return await rewards if inspect.isawaitable(rewards) else rewards
        except RltrainError:
            raise
        except (Exception, SystemExit) as error:
            text = f"Reward function {self._name!r} is broken: it {raised(error)}"
            raise EnvironmentFault(text) from error

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
        try:
            # A number of any library has `__float__`; text that looks like one has not.
            number = float("nan") if isinstance(reward, str | bytes) else float(reward)
        except (TypeError, ValueError):
            number = float("nan")
        if not math.isfinite(number):
            raise EnvironmentFault(
                f"TRL reward function {self._name!r} returned {reward!r:.80}, which is no finite "
                "number."
            )
        return number


async def in_thread(call: Callable[[], Any]) -> Any:
    """Run it in a thread that ends with the process, however long it takes; raises what it does."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if not done.done():  # nobody waits any more
            done.set_result((value, error))

    def work() -> None:
        value, error = None, None
        try:
            value = call()
        except BaseException as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, daemon=True, name="rltrain-reward").start()
    value, error = await done
    if error is not None:
        raise error
    return value


def _ignore(*_: Any, **__: Any) -> None:
    """Stands in for the logging hooks that TRL passes; gates keep their own records."""
