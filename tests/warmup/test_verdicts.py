"""Training of the embedded judge: marks, batches, loss, and that it repeats bit for bit."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice

import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from rltrain.warmup import sft, verdicts
from rltrain.warmup.tokenizer import train_tokenizer
from rltrain.warmup.verdicts import IGNORED, Pair

COLOURS = ("red", "blue", "green", "black", "white", "grey", "pink", "brown")
SCHEDULE = sft.Schedule(steps=12, batch_size=8, lr=5e-3, seed=0, prompt_weight=0.3)


def pair(asked: str, answer: str) -> Pair:
    content = f"request: {asked}\nquery: {answer}\ncorrect?"
    fine = verdicts.fine_until(answer, [asked])
    return Pair(content=content, answer=answer, correct=asked == answer, fine=fine)


PAIRS = [pair(one, other) for one in COLOURS for other in (one, one, *COLOURS[:2])]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([p.content for p in PAIRS] * 3 + ["yes no"], 400, 64, reads_only=True)


def model_of(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    return sft.new_model(tokenizer, sft.Shape(hidden_size=32, layers=2, max_length=64), seed=0)


@pytest.mark.parametrize(
    ("answer", "right", "fine"),
    [
        ("a = 1 AND b = 2", ["a = 1 AND b = 3", "b = 3 AND a = 1"], 14),  # up to the 2
        ("b = 3 AND a = 2", ["a = 1 AND b = 3", "b = 3 AND a = 1"], 14),  # in another order
        ("a = 1", ["a = 1 AND b = 3"], 5),  # nothing is wrong with it but its end
        ("a = 1 AND b = 3 OR c = 4", ["a = 1 AND b = 3"], 15),
        ("c = 4", ["a = 1"], 0),
        ("", ["a = 1"], 0),
        ("a", [], 0),
    ],
)
def test_an_answer_is_fine_as_far_as_some_right_answer_begins_with_it(
    answer: str, right: list[str], fine: int
) -> None:
    assert verdicts.fine_until(answer, right) == fine


def test_marks_turn_at_the_first_wrong_token_and_the_verdict_is_one_token(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    wrong = Pair(content="request: red blue\nquery: red green blue\ncorrect?",
                 answer="red green blue", correct=False, fine=len("red "))  # fmt: skip
    (row,) = verdicts.examples([wrong], tokenizer)
    marked = [
        (tokenizer.decode([i]), mark)
        for i, mark in zip(row.ids, row.marks, strict=True)
        if mark != IGNORED
    ]
    assert marked == [("red", 1), ("green", 0), ("blue", 0)]  # not the request's own words
    assert row.ids[-2:] == [verdicts.verdict_ids(tokenizer)[1], tokenizer.eos_token_id]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": wrong.content}], add_generation_prompt=True, tokenize=False
    )
    assert row.ids[:-2] == tokenizer.encode(prompt, add_special_tokens=False)


def test_without_known_right_answers_nothing_is_marked(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = Pair(content="query: red\ncorrect?", answer="red", correct=False, fine=None)
    (row,) = verdicts.examples([plain], tokenizer)
    assert set(row.marks) == {IGNORED}
    batch = verdicts.collate([row], tokenizer.pad_token_id)
    words = verdicts.verdict_ids(tokenizer)
    assert torch.isfinite(verdicts.loss(model_of(tokenizer), batch, words, 0.3))


def test_the_loss_of_a_padded_batch_is_the_mean_over_its_tokens(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Against a reading of every row by itself, token by token."""
    rows = verdicts.examples([PAIRS[0], pair("red blue", "red green blue"), PAIRS[5]], tokenizer)
    model, words = model_of(tokenizer), verdicts.verdict_ids(tokenizer)
    said, marks, read = [], [], []
    with torch.no_grad():
        for row in rows:
            logits = model(torch.tensor([row.ids])).logits[0].double()
            logs = logits.log_softmax(-1)
            last = len(row.ids) - 3
            said.append(-logs[last, words[0] if row.correct else words[1]].item())
            for at, mark in enumerate(row.marks):
                if mark != IGNORED:
                    yes = (logits[at, words[0]] - logits[at, words[1]]).item()
                    marks.append(math.log1p(math.exp(-yes if mark else yes)))
            read += [-logs[at, row.ids[at + 1]].item()
                     for at in range(len(row.ids) - 1) if at != last]  # fmt: skip
        batch = verdicts.collate(rows, tokenizer.pad_token_id)
        found = verdicts.loss(model, batch, words, 0.3).item()
    means = [sum(part) / len(part) for part in (said, marks, read)]
    assert found == pytest.approx(means[0] + verdicts.MARK_WEIGHT * means[1] + 0.3 * means[2], 1e-5)


def test_every_example_comes_once_a_round_in_batches_of_like_length(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = verdicts.examples(PAIRS + [pair("red " * 9, "red")] * 8, tokenizer)
    one = list(islice(verdicts.batches(rows, 8, seed=3), 5))
    assert one == list(islice(verdicts.batches(rows, 8, seed=3), 5))
    counts = Counter(id(row) for batch in one for row in batch)
    assert all(counts[id(row)] == 1 for row in rows)
    assert sum(len({len(row.ids) for row in batch}) > 2 for batch in one) == 0


def test_the_same_seed_gives_the_same_weights(tokenizer: PreTrainedTokenizerFast) -> None:
    def trained() -> list[torch.Tensor]:
        model = model_of(tokenizer)
        rows = verdicts.examples(PAIRS, tokenizer)
        assert math.isfinite(verdicts.train(model, tokenizer, rows, SCHEDULE, lambda *_: None))
        return list(model.parameters())

    before = list(model_of(tokenizer).parameters())
    first, second = trained(), trained()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, before, strict=True) if a.ndim == 2)


def test_a_rate_that_blows_up_is_said_to(tokenizer: PreTrainedTokenizerFast) -> None:
    model = model_of(tokenizer)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    rows = verdicts.examples(PAIRS, tokenizer)
    with pytest.raises(RuntimeError, match=r"lower rewards\.judge\.tiny\.lr"):
        verdicts.train(model, tokenizer, rows, SCHEDULE, lambda *_: None)
