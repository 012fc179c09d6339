"""The one place that knows chat templates. Text becomes ids here once; sampled ids are never
re-tokenized, so a multi-turn prompt is the old ids plus the ids of what is new."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rltrain.errors import UserError
from rltrain.types import Message


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
        return self._template(messages, first=True)

    def continuation(self, messages: Sequence[Message]) -> list[int]:
        """Ids of new messages after a sampled turn, to be appended to the ids so far."""
        return self._template(messages, first=False)

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _template(self, messages: Sequence[Message], first: bool) -> list[int]:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        rendered = self.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=False
        )
        if not first:
            # A template may open every conversation with a preamble; a continuation has none.
            preamble = self.tokenizer.apply_chat_template(
                [], add_generation_prompt=False, tokenize=False
            )
            rendered = rendered.removeprefix(preamble)
        return [int(i) for i in self.tokenizer.encode(rendered, add_special_tokens=False)]
