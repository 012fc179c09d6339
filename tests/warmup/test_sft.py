"""Our own fast tokenization of demonstrations against TRL's path, row by row."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from rltrain.types import Message
from rltrain.warmup.policy import chat_row
from rltrain.warmup.sft import Shape, new_model, tokenized
from rltrain.warmup.tokenizer import train_tokenizer

PAIRS = [
    ("vip customers", "customer_tags CONTAINS 'vip'"),
    ("who ordered in the last 30 days?\nand spent a lot", "orders > 0 SINCE -30d"),
    ("Käufer aus 東京", ""),
]


def prepared(dataset: Dataset, folder: Path, tokenizer: PreTrainedTokenizerFast) -> Dataset:
    """What TRL trains on, once its trainer has prepared a dataset."""
    trainer = SFTTrainer(
        model=new_model(tokenizer, Shape(hidden_size=16, layers=1, max_length=128), seed=0),
        args=SFTConfig(
            output_dir=str(folder), report_to="none", use_cpu=True, bf16=False,
            completion_only_loss=True, max_length=None,
        ),
        train_dataset=dataset,
        processing_class=tokenizer,
    )  # fmt: skip
    return trainer.train_dataset


def test_rows_are_tokenized_and_masked_as_trl_would(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([text for pair in PAIRS for text in pair], 320, 128)
    rows = [chat_row((Message(role="user", content=ask),), answer) for ask, answer in PAIRS]
    ours = tokenized(rows, tokenizer)
    theirs = prepared(Dataset.from_list(rows), tmp_path, tokenizer)
    fed = prepared(Dataset.from_dict(ours), tmp_path, tokenizer)
    assert ours["input_ids"] == theirs["input_ids"][:]
    assert fed["input_ids"][:] == theirs["input_ids"][:]
    assert fed["labels"][:] == theirs["labels"][:]
    for ids, mask, labels in zip(
        ours["input_ids"], ours["completion_mask"], theirs["labels"][:], strict=True
    ):
        assert labels == [i if m else -100 for i, m in zip(ids, mask, strict=True)]
    assert [ids[-1] for ids in ours["input_ids"]] == [tokenizer.eos_token_id] * 3
    assert sum(ours["completion_mask"][2]) == 1  # an empty answer is its end mark alone
