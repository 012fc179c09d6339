"""Chat templates: what is rendered turn by turn is what the template makes of the whole."""

from __future__ import annotations

from typing import Any

import pytest

from rltrain.errors import UserError
from rltrain.rollout.render import Renderer
from rltrain.types import Message
from rltrain.warmup.tokenizer import CHAT_TEMPLATE, train_tokenizer

# Shaped like Qwen's: a default system message, a line break between turns, and an error for a
# conversation without messages.
PREAMBLE = (
    "{% if messages[0]['role'] != 'system' %}<|system|>Be brief.<|end|>\n{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ASKED = Message(role="user", content="vip customers, 30 days")
TOOL = Message(role="tool", content="no such tag: answer 7?")


def tokenizer(template: str | None = CHAT_TEMPLATE) -> Any:
    made = train_tokenizer([ASKED.content, "tag = 'vip'"], 320, 128)
    made.chat_template = template
    return made


def whole(tok: Any, messages: list[Message]) -> list[int]:
    chat = [{"role": m.role, "content": m.content} for m in messages]
    text = tok.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return [int(i) for i in tok.encode(text, add_special_tokens=False)]


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, PREAMBLE], ids=["plain", "preamble"])
def test_turn_by_turn_gives_the_ids_of_the_whole_conversation(template: str) -> None:
    tok = tokenizer(template)
    renderer = Renderer(tok)
    answer = Message(role="assistant", content="tag = 'vip'")
    sampled = [*tok.encode(answer.content, add_special_tokens=False), tok.eos_token_id]
    ids = [*renderer.prompt([ASKED]), *sampled, *renderer.continuation([TOOL])]
    assert ids == whole(tok, [ASKED, answer, TOOL])


def test_a_prompt_ends_where_the_assistant_is_to_speak() -> None:
    tok = tokenizer()
    assert tok.decode(Renderer(tok).prompt([ASKED])) == (
        "<|user|>vip customers, 30 days<|end|><|assistant|>"
    )


def test_text_is_without_the_special_tokens() -> None:
    tok = tokenizer()
    assert Renderer(tok).text([*tok.encode("tag = 'vip'"), tok.eos_token_id]) == "tag = 'vip'"


def test_generation_stops_at_the_end_of_turn() -> None:
    tok = tokenizer()
    assert Renderer(tok).stop_ids == (tok.convert_tokens_to_ids("<|end|>"),)


def test_a_tokenizer_that_cannot_be_used_is_refused_with_what_to_do() -> None:
    with pytest.raises(UserError, match="no chat template; add one"):
        Renderer(tokenizer(None))
    endless = tokenizer()
    endless.eos_token = None
    with pytest.raises(UserError, match="no end-of-turn token"):
        Renderer(endless)
    with pytest.raises(UserError, match="no tokenizer at /nowhere"):
        Renderer.load("/nowhere")
