"""A trained reward model as a gate: (prompt, canonical answer) -> score in [0, 1].

The model is a sequence classifier with one output, as TRL's `RewardTrainer` makes it. Its loss
fixes differences of values only, so the zero point means nothing; its config.json says where the
values of held-out answers lie, and

    score = sigmoid((value - centre) / spread)

torch is imported when the first answer is scored, in the process that scores it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rltrain.errors import JudgeFault, UserError
from rltrain.types import Message, Task, Verdict

STAMP = "rltrain_reward"
"""Key of the scale in the model's config.json."""
GATE = "reward_model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Where the values of held-out answers lie, and which weights gave them."""

    centre: float
    spread: float
    """Standard deviation; above 0."""
    version: str
    """First digits of the weights' SHA-256."""

    def score(self, value: float) -> float:
        """Value -> [0, 1], monotonic; 0.5 at the centre."""
        x = (value - self.centre) / self.spread
        return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))

    @staticmethod
    def read(folder: Path) -> Scale:
        """Of a saved model. Raises `OSError`, `ValueError`, `KeyError` or `TypeError` if it has
        none."""
        return Scale(**json.loads((folder / "config.json").read_text())[STAMP])


def stamp(model: Any, values: Sequence[float]) -> Scale:
    """Measure the scale over values of answers that were not trained on, and put it into the
    model's config, which is saved with the weights.

    Raises `UserError` if the values are not finite or all the same: such a model tells nothing.
    """
    centre = sum(values) / len(values)
    spread = math.sqrt(sum((value - centre) ** 2 for value in values) / len(values))
    if not math.isfinite(spread) or spread == 0:
        raise UserError(
            f"the reward model tells no answers apart (spread {spread} over {len(values)}); train "
            "longer, or lower train.lr"
        )
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    scale = Scale(centre=centre, spread=spread, version=digest.hexdigest()[:12])
    setattr(model.config, STAMP, asdict(scale))
    return scale


class Scorer:
    """A sequence classifier and its tokenizer. Used for training data and by the gate alike, so
    that a model is asked in exactly the words that it was trained on."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @staticmethod
    def load(folder: Path) -> Scorer:
        """Raises `UserError` if there is no reward model in `folder`."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                str(folder), dtype=torch.float32, attn_implementation="eager"
            )
            tokenizer = AutoTokenizer.from_pretrained(str(folder))
        except (OSError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise UserError(f"no reward model can be loaded from {folder}: {first}") from error
        return Scorer(model, tokenizer)

    def ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        """Ids of the whole conversation, the answer as the assistant's closed turn."""
        chat = [{"role": m.role, "content": m.content} for m in messages]
        chat.append({"role": "assistant", "content": answer})
        text = self.tokenizer.apply_chat_template(chat, tokenize=False)
        return [int(i) for i in self.tokenizer.encode(text, add_special_tokens=False)]

    def value(self, messages: Sequence[Message], answer: str) -> float:
        """The model's output for one answer; any real number. Computed alone, without padding."""
        import torch

        self.model.eval()
        device = next(self.model.parameters()).device
        ids_1T = torch.tensor([self.ids(messages, answer)], device=device)
        with torch.inference_mode():
            return float(self.model(input_ids=ids_1T, use_cache=False).logits[0, 0])


class RewardModelCheck:
    """A `Check` over canonical answers; loads its model when it is first asked."""

    def __init__(self, folder: str | None, pass_at: float) -> None:
        """Raises `UserError` if the folder holds no trained reward model."""
        if folder is None:
            raise UserError(
                "rewards.reward_model.folder is not set; give the model of a finished "
                "algo=reward_model run, such as runs/NAME/model"
            )
        self._folder = Path(folder)
        try:
            self._scale = Scale.read(self._folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"rewards.reward_model.folder={folder} is no trained reward model; give "
                "runs/NAME/model of a finished algo=reward_model run"
            ) from error
        self.version = self._scale.version
        self._pass_at = pass_at
        self._scorer: Scorer | None = None
        self._lock = threading.Lock()

    async def __call__(self, task: Task, answer: str) -> Verdict:
        """Score a canonical answer.

        Raises `UserError` if the model cannot be loaded, `JudgeFault` if it gives no finite value.
        """
        value = await asyncio.to_thread(self._value, task, answer)
        score = self._scale.score(value)
        return Verdict(
            gate=GATE,
            passed=score >= self._pass_at,
            score=score,
            reason=f"value: {value:.4g}",
            version=self.version,
        )

    def _value(self, task: Task, answer: str) -> float:
        with self._lock:
            self._scorer = self._scorer or Scorer.load(self._folder)
            try:
                value = self._scorer.value(task.prompt, answer)
            except (RuntimeError, ValueError, IndexError) as error:
                first = (str(error).splitlines() or [""])[0]
                raise JudgeFault(f"the reward model failed on an answer: {first}") from error
        if not math.isfinite(value):
            raise JudgeFault(f"the reward model gave {value} for an answer")
        return value
