"""Rows -> ids: the sampled ids where they are known, what TRL itself would make elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from rltrain.config.offline import SelectConfig
from rltrain.offline import tokens
from rltrain.offline.select import preferences
from rltrain.rewards.reward_model import Scorer
from rltrain.rollout.render import Renderer
from tests.offline.offline_makers import RIGHT, WRONG, lesson, stored

SIDES = ("chosen", "rejected")


def rows(renderer: Renderer, folder: Path) -> list[dict[str, Any]]:
    found = preferences(stored(lesson(renderer)[:4], folder), SelectConfig(), 0)
    return found.rows


def without_ids(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.endswith("_ids")}


def test_the_sampled_ids_are_used_even_where_the_tokenizer_would_split_otherwise(
    renderer: Renderer, tmp_path: Path
) -> None:
    (row, *_) = rows(renderer, tmp_path)
    letters = [i for c in RIGHT for i in renderer.tokenizer.encode(c, add_special_tokens=False)]
    assert renderer.text(letters) == RIGHT, "the same text, one token per letter"
    row["chosen_ids"] = [*letters, *renderer.stop_ids]
    columns, counts = tokens.completion_columns([row], SIDES, renderer, 128)
    assert columns["chosen_ids"] == [row["chosen_ids"]]
    assert counts == {"as_sampled": 2}


def test_ids_of_another_tokenizer_are_not_believed(renderer: Renderer, tmp_path: Path) -> None:
    (row, *_) = rows(renderer, tmp_path)
    made = [*renderer.tokenizer.encode(RIGHT, add_special_tokens=False), *renderer.stop_ids]
    for changed in ({"prompt_ids": [9, 9]}, {"chosen_ids": [9, 9], "rejected_ids": [9]}):
        columns, counts = tokens.completion_columns([row | changed], SIDES, renderer, 128)
        assert columns["chosen_ids"] == [made] and counts["tokenized"] == 2
        assert columns["prompt_ids"] == [renderer.prompt(tokens.messages_of(row))]


def test_a_cut_answer_gets_no_end_mark_and_another_length_is_counted(
    renderer: Renderer, tmp_path: Path
) -> None:
    row = without_ids(rows(renderer, tmp_path)[0])
    row["chosen_rollout"] |= {"stop_reason": "length"}
    columns, counts = tokens.completion_columns([row], SIDES, renderer, 128)
    made = renderer.tokenizer.encode(RIGHT, add_special_tokens=False)
    assert columns["chosen_ids"] == [made]  # the store says one token more, with the end mark
    assert columns["rejected_ids"][0][-1] == renderer.stop_ids[0]
    assert counts == {"tokenized": 2, "other_length": 1}


def test_a_row_that_does_not_fit_is_left_out_and_counted(
    renderer: Renderer, tmp_path: Path
) -> None:
    (row, *_) = rows(renderer, tmp_path)
    prompt = len(renderer.prompt(tokens.messages_of(row)))
    longest = prompt + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
    fits, _ = tokens.completion_columns([row], SIDES, renderer, longest)
    assert len(fits["prompt_ids"]) == 1
    columns, counts = tokens.completion_columns([row], SIDES, renderer, longest - 1)
    assert columns == {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    assert counts == {"too_long": 1}


def test_rows_without_ids_become_what_trl_makes_of_them(
    policy: Path, renderer: Renderer, tmp_path: Path
) -> None:
    plain = [without_ids(row) for row in rows(renderer, tmp_path)]
    chats = [{key: row[key] for key in ("prompt", *SIDES)} for row in plain]
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy),
        args=DPOConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False),
        train_dataset=Dataset.from_list(chats),
        processing_class=renderer.tokenizer,
    )
    columns, _ = tokens.completion_columns(plain, SIDES, renderer, 128)
    for name, ids in columns.items():
        assert ids == trainer.train_dataset[name][:]


def test_a_reward_model_reads_what_trl_would_read(
    policy: Path, renderer: Renderer, tmp_path: Path
) -> None:
    texts, _ = tokens.judged_texts(rows(renderer, tmp_path))
    scorer = Scorer(None, renderer.tokenizer)
    columns, _ = tokens.judged_columns(texts, scorer.ids, 128)
    said = [
        {"prompt": row["prompt"]}
        | {
            side: [{"role": "assistant", "content": text}]
            for side, text in zip(SIDES, both, strict=True)
        }
        for row, *both in texts
    ]
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1),
        args=RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False),
        train_dataset=Dataset.from_list(said),
        processing_class=renderer.tokenizer,
    )
    for name, ids in columns.items():
        assert ids == trainer.train_dataset[name][:]


def test_an_answer_for_sft_is_masked_up_to_its_first_token() -> None:
    columns = {"prompt_ids": [[1, 2], [3]], "completion_ids": [[4], [5, 6]]}
    assert tokens.sft_columns(columns) == {
        "input_ids": [[1, 2, 4], [3, 5, 6]],
        "completion_mask": [[0, 0, 1], [0, 1, 1]],
    }


def judged_row(chosen: str | None, rejected: str | None, prompt: str = "p") -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": "raw chosen"}],
        "rejected": [{"role": "assistant", "content": "raw rejected"}],
        "chosen_canonical": chosen,
        "rejected_canonical": rejected,
    }


def test_a_reward_model_sees_canonical_answers_only() -> None:
    rows = [judged_row("A", "B"), judged_row("A", None), judged_row("A", "A"), judged_row("A", "B")]
    kept, counts = tokens.judged_texts(rows)
    assert [pair[1:] for pair in kept] == [("A", "B")]
    assert counts == {"unparsed": 1, "same": 1, "repeated": 1}
    foreign = {key: rows[0][key] for key in ("prompt", "chosen", "rejected")}
    assert tokens.judged_texts([foreign])[0][0][1:] == ("raw chosen", "raw rejected")


def test_no_task_is_trained_on_and_held_out() -> None:
    pairs = [
        (judged_row("A", f"{i}", prompt=f"p{n}"), "A", f"{i}") for n in range(300) for i in (1, 2)
    ]
    train, held = tokens.split_tasks(pairs)

    def prompts(some: list[Any]) -> list[str]:
        return [row["prompt"][0]["content"] for row, *_ in some]

    assert not set(prompts(train)) & set(prompts(held))
    assert len(prompts(held)) == len(set(prompts(held))), "one pair per held-out task"
    assert len(train) + 2 * len(held) == 600
    assert 15 <= len(held) <= 50  # one in ten of 300, drawn by a hash
    assert WRONG not in prompts(train)
