"""A small byte-level BPE tokenizer with a chat template, trained on an environment's own text."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT, SYSTEM, TOOL = (
    "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>",
)  # fmt: skip

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


WORDS = r" ?[A-Za-z_][A-Za-z_.]*| ?\d| ?[^\sA-Za-z_\d]|\s"
"""What merges may not cross. An identifier such as `shopify_email.opened` can be one token."""


READ_WORDS = r"[A-Za-z_][A-Za-z_.]*|\d+|[^\sA-Za-z_\d]"
"""The same for a model that only reads: whole numbers, and blanks belong to nothing."""


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, max_length: int, *, reads_only: bool = False
) -> PreTrainedTokenizerFast:
    """Train on texts. Digits stand alone, so that a number is copied and not recalled; bytes are
    the fallback, so that any text can be encoded.

    reads_only: for a model that compares texts and writes single words. Blanks are dropped and a
    number is one word, so that `30 days` and `-30d` share a token; decoding brings no blanks back.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _read_words() if reads_only else _written_words()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, USER, ASSISTANT, SYSTEM, TOOL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM, TOOL],
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _written_words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _read_words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
            pre_tokenizers.Split(Regex(READ_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
