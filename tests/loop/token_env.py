"""A language of ten digits; the reward is their mean: dense, so that a random policy earns some."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rltrain.protocols import Check, Detector
from rltrain.types import Message, Task, Turn, Verdict

MARKS = ("<|end|>", "<|pad|>", "<|user|>", "<|assistant|>")
DIGITS = "0123456789"
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per digit, and the marks."""
    vocabulary = {text: number for number, text in enumerate([*MARKS, *DIGITS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=MARKS[1]))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=MARKS[0],
        pad_token=MARKS[1],
        additional_special_tokens=list(MARKS[2:]),
    )
    made.chat_template = TEMPLATE
    return made


def mean_digit(answer: str) -> float:
    """Mean of the digits over 9, in [0, 1]; 0 for an answer without any."""
    return sum(map(int, answer)) / (9 * len(answer)) if answer else 0.0


class Answered:
    """Gate: the answer has a digit at all."""

    version = "1"

    async def __call__(self, task: Task, answer: str) -> Verdict:
        return Verdict(gate="answered", passed=bool(answer), score=float(bool(answer)))


class MeanDigit:
    """Gate: its score is the reward."""

    version = "1"

    async def __call__(self, task: Task, answer: str) -> Verdict:
        return Verdict(gate="mean_digit", passed=True, score=mean_digit(answer))


class OneAnswer:
    """A session of `turns` turns; the answer is all that was said."""

    def __init__(self, turns: int) -> None:
        self.left = turns
        self.answer = ""

    async def step(self, turn: Turn) -> Sequence[Message] | None:
        self.answer += turn.text
        self.left -= 1
        return [Message(role="user", content="1")] if self.left else None

    async def close(self) -> None:
        pass


class TokenEnvironment:
    """Implements `protocols.Environment`."""

    name = "tokens"
    version = "1"

    def __init__(self, turns: int = 1) -> None:
        self.turns = turns

    def tasks(self, split: str, seed: int) -> Iterator[Task]:
        for number in itertools.count(seed):
            prompt = (Message(role="user", content=str(number % 100)),)
            yield Task(id=f"tokens-{number}", env=self.name, prompt=prompt, split=split)

    def open(self, task: Task) -> OneAnswer:
        return OneAnswer(self.turns)

    def checks(self) -> Mapping[str, Check]:
        return {"answered": Answered(), "mean_digit": MeanDigit()}

    def detectors(self) -> Mapping[str, Detector]:
        return {}

    def truth(self, task: Task, answer: str) -> float:
        return mean_digit(answer)

    def canonical(self, task: Task, answer: str) -> str | None:
        return answer or None

    def judge_prompt(self, task: Task, canonical: str) -> Sequence[Message]:
        return (Message(role="user", content=canonical),)


def build(turns: int = 1) -> TokenEnvironment:
    return TokenEnvironment(turns)
