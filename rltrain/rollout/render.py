"""The one place that knows chat templates. Text becomes ids here once; sampled ids are never
re-tokenized, so a multi-turn prompt is the old ids plus the ids of what is new."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rltrain.errors import UserError
from rltrain.types import Message

STAND_IN = "answer-of-the-policy"
"""Takes the place of a sampled turn where only what comes after it is wanted."""


class Renderer:
    """Messages -> ids, ids -> text, for one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.chat_template is None:
            raise UserError(
                "the model's tokenizer has no chat template; add one to its tokenizer_config.json"
            )
        if tokenizer.eos_token_id is None:
            raise UserError("the model's tokenizer has no end-of-turn token (eos_token)")
        self.tokenizer = tokenizer
        self.stop_ids: tuple[int, ...] = (int(tokenizer.eos_token_id),)

    @staticmethod
    def load(folder: str | Path) -> Renderer:
        """Load the tokenizer of a model folder or hub name. Raises `UserError` if it has none."""
        from transformers import AutoTokenizer

        try:
            return Renderer(AutoTokenizer.from_pretrained(str(folder)))
        except OSError as error:
            raise UserError(f"no tokenizer at {folder}: {str(error).splitlines()[0]}") from error

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, ending where the assistant is to speak."""
        return self._ids(self._rendered(messages))

    def continuation(self, messages: Sequence[Message]) -> list[int]:
        """Ids of new messages after a sampled turn, to be appended to the ids so far.

        Rendered behind a stand-in for that turn, because a template may open a conversation with
        a preamble, refuse an empty one, and put text between turns."""
        so_far = (Message(role="user", content="?"), Message(role="assistant", content=STAND_IN))
        _, _, rest = self._rendered([*so_far, *messages]).partition(STAND_IN)
        return self._ids(rest.removeprefix(self.tokenizer.eos_token))

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _rendered(self, messages: Sequence[Message]) -> str:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        return str(
            self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        )

    def _ids(self, rendered: str) -> list[int]:
        return [int(i) for i in self.tokenizer.encode(rendered, add_special_tokens=False)]
