"""The tokenizer loses nothing, recalls no numbers, and marks turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from rltrain.warmup.tokenizer import train_tokenizer

TEXTS = [f"customer_tags CONTAINS 'vip' AND orders > {n} SINCE -{n}d" for n in range(200)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 400, 128)


@given(text=st.text(max_size=80))
def test_any_text_comes_back_as_it_was(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text


@given(number=st.integers(0, 10**12))
def test_every_digit_is_a_token_of_its_own(
    tokenizer: PreTrainedTokenizerFast, number: int
) -> None:
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(f"orders > {number}d")]
    digits = [piece for piece in pieces if any(c.isdigit() for c in piece)]
    assert [piece.strip() for piece in digits] == list(str(number))


def test_a_frequent_identifier_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer.encode("customer_tags", add_special_tokens=False)) == 1


def test_a_conversation_is_marked_by_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = [{"role": "user", "content": "vip"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == "<|user|>vip<|end|><|assistant|>"
    ids = tokenizer.encode(text, add_special_tokens=False)
    marks = [tokenizer.convert_tokens_to_ids(m) for m in ("<|user|>", "<|end|>", "<|assistant|>")]
    assert [ids[0], *ids[-2:]] == marks
    assert tokenizer.eos_token_id == marks[1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "vip"


def test_the_vocabulary_is_as_large_as_asked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    assert 262 < len(tokenizer) <= 400  # 256 bytes and six marks at the least


def test_a_tokenizer_that_only_reads_drops_blanks_and_keeps_numbers_whole() -> None:
    reader = train_tokenizer(["in the last 30 days", "date >= -30d yes"] * 3, 400, 64,
                             reads_only=True)  # fmt: skip

    def pieces(text: str) -> list[str]:
        return [reader.decode([i]) for i in reader.encode(text, add_special_tokens=False)]

    assert pieces("last  30 days") == ["last", "30", "days"]
    assert pieces(">= -30d") == [">", "=", "-", "30", "d"]
    assert pieces("yes") == ["yes"]
    assert "".join(pieces("Käufer 4711")) == "Käufer4711" or "�" in "".join(pieces("Käufer"))
