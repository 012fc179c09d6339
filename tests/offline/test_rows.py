"""The file of pairs: what is written is read back, and a wrong line is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rltrain.errors import UserError
from rltrain.offline.rows import read_rows, write_rows

PAIR = {
    "prompt": [{"role": "user", "content": "Käufer aus 東京\u2028"}],
    "chosen": [{"role": "assistant", "content": "a\nb"}],
    "rejected": [{"role": "assistant", "content": ""}],
    "margin": 0.5,
}


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "pairs.jsonl"
    write_rows(path, [PAIR, PAIR])
    assert read_rows(path, "dpo") == read_rows(path, "reward_model") == [PAIR, PAIR]
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"pairs.jsonl:2 is not JSON"),
        ("[]", "it is not an object"),
        ({**PAIR, "prompt": "plain"}, "'prompt' is not a list of messages"),
        ({**PAIR, "chosen": []}, "'chosen' is not a list of messages"),
        ({**PAIR, "rejected": [{"role": "user", "content": "x"}]}, "'rejected' is not one assist"),
        ({**PAIR, "chosen": PAIR["chosen"] * 2}, "'chosen' is not one assistant message"),
        ({**PAIR, "chosen": [{"role": "assistant", "content": None}]}, "'chosen' is not a list"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: object, said: str) -> None:
    path = tmp_path / "pairs.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_text(f"{json.dumps(PAIR)}\n{text}\n")
    with pytest.raises(UserError, match=said) as caught:
        read_rows(path, "dpo")
    assert "pairs.jsonl:2" in str(caught.value)


def test_files_that_are_missing_empty_or_of_the_other_kind(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(UserError, match="is not a file; make one with `rltrain pairs RUN`"):
        read_rows(path, "dpo")
    path.write_text("\n")
    with pytest.raises(UserError, match="has no rows"):
        read_rows(path, "dpo")
    write_rows(path, [PAIR])
    with pytest.raises(UserError, match="algo=sft: 'completion' is not a list"):
        read_rows(path, "sft")


def test_a_place_that_cannot_be_written_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_rows(tmp_path / "file" / "pairs.jsonl", [PAIR])
