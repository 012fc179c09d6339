"""TRL's trainers as we set them up: first losses worked by hand, settings refused early."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM
from trl import DPOTrainer

from rltrain.config import RunConfig
from rltrain.errors import UserError
from rltrain.offline import tokens
from rltrain.offline.select import SelectConfig, demonstrations, preferences
from rltrain.offline.trainers import LOSS_TYPES, check, longest_row, make_trainer, micro_batches
from rltrain.rollout.render import Renderer
from tests.offline.offline_makers import lesson, make_config, stored


class Rows:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def log(self, step: int, metrics: Any) -> None:
        self.rows.append({"step": step, **metrics})

    def close(self) -> None: ...


def columns_of(method: str, renderer: Renderer, folder: Path) -> tokens.Columns:
    rollouts = stored(lesson(renderer), folder)
    if method == "sft":
        rows = demonstrations(rollouts, SelectConfig(), 0).rows
        made, _ = tokens.completion_columns(rows, ("completion",), renderer, 128)
        return tokens.sft_columns(made)
    rows = preferences(rollouts, SelectConfig(), 0).rows
    return tokens.completion_columns(rows, ("chosen", "rejected"), renderer, 128)[0]


def train(
    config: RunConfig, policy: Path, renderer: Renderer, folder: Path
) -> tuple[list[dict[str, float]], Any, list[int]]:
    tracker, saved = Rows(), []
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    columns = columns_of(config.algo.method, renderer, folder)
    parts = (model, renderer.tokenizer)
    trainer = make_trainer(config, parts, columns, folder / "trl", tracker, saved.append)
    trainer.train()
    return tracker.rows, trainer, saved


@pytest.mark.parametrize(
    ("loss_type", "first"),
    # At the start the policy is its own reference, so both log-ratios are 0.
    # sigmoid: -log sigmoid(0); hinge: max(0, 1 - 0); ipo: (0 - 1 / (2 * 0.1))^2;
    # apo_zero: (1 - sigmoid(0)) + sigmoid(0); sigmoid + sft would not be a constant.
    [("sigmoid", math.log(2)), ("hinge", 1.0), ("ipo", 25.0), ("apo_zero", 1.0)],
)
def test_dpo_starts_at_the_loss_of_equal_policies_and_learns_the_preference(
    loss_type: str, first: float, policy: Path, renderer: Renderer, tmp_path: Path
) -> None:
    config = make_config(
        tmp_path, policy, "algo=dpo", "algo.data=x", f"algo.loss_type={loss_type}"
    )
    rows, _, _ = train(config, policy, renderer, tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0]["loss"] == pytest.approx(first, rel=1e-5)
    assert rows[-1]["loss"] < 0.99 * first
    assert rows[-1]["trl/rewards/accuracies"] == 1.0
    assert rows[0]["lr"] == 3e-3 and {"grad_norm", "policy/entropy"} <= rows[0].keys()


def test_sft_starts_at_the_policys_own_nll_per_token(
    policy: Path, renderer: Renderer, tmp_path: Path
) -> None:
    config = make_config(tmp_path, policy, "algo=sft", "algo.data=x", "algo.batch_size=40")
    rows, _, _ = train(config, policy, renderer, tmp_path)
    columns = columns_of("sft", renderer, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    total, count = 0.0, 0
    for ids, mask in zip(columns["input_ids"], columns["completion_mask"], strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        for place in range(1, len(ids)):
            if mask[place]:
                total -= float(logprobs[place - 1, ids[place]])
                count += 1
    assert rows[0]["loss"] == pytest.approx(total / count, rel=1e-4)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.05
    # TRL's token count is a running total; ours is per step
    assert rows[0]["tokens/trained"] == sum(map(len, columns["input_ids"]))
    assert sum(row["tokens/trained"] for row in rows) == 6 * rows[0]["tokens/trained"]


def test_how_a_batch_is_split_does_not_change_the_training(
    policy: Path, renderer: Renderer, tmp_path: Path
) -> None:
    def losses(limit: int) -> list[float]:
        config = make_config(
            tmp_path, policy, "algo=dpo", "algo.data=x", f"train.micro_batch_tokens={limit}"
        )
        rows, trainer, _ = train(config, policy, renderer, tmp_path / str(limit))
        assert (trainer.args.gradient_accumulation_steps > 1) == (limit < 1000)
        return [row["loss"] for row in rows]

    assert losses(100) == pytest.approx(losses(4000), rel=1e-4)


def test_checkpoints_are_asked_for_between_steps_and_not_at_the_end(
    policy: Path, renderer: Renderer, tmp_path: Path
) -> None:
    config = make_config(
        tmp_path, policy, "algo=sft", "algo.data=x", "train.checkpoint_every=2"
    )
    assert train(config, policy, renderer, tmp_path)[2] == [2, 4]


def test_a_loss_that_is_not_finite_ends_the_training(
    policy: Path, renderer: Renderer, tmp_path: Path
) -> None:
    config = make_config(tmp_path, policy, "algo=sft", "algo.data=x", "train.lr=1e30")
    with pytest.raises(UserError, match=r"loss is not finite at step \d; lower train.lr"):
        train(config, policy, renderer, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["algo.loss_type=sigmod"], r"algo.loss_type: 'sigmod' is not one of sigmoid, hinge"),
        (["algo.loss_type=[sigmoid,x]"], "'x' is not one of"),
        (["+algo.trl.label_smooth=0.1"], "TRL's DPOConfig has no argument 'label_smooth'"),
        (["+algo.trl.learning_rate=1"], r"algo.trl.learning_rate: rltrain sets this"),
        (["precision=fp16"], "fp16 on a GPU only"),
    ],
)
def test_what_trl_would_refuse_is_refused_before_anything_starts(
    overrides: list[str], said: str, policy: Path, tmp_path: Path
) -> None:
    config = make_config(tmp_path, policy, "algo=dpo", "algo.data=x", *overrides)
    with pytest.raises(UserError, match=said):
        check(config, on_cpu=True)


def test_trls_own_refusal_is_passed_on(policy: Path, renderer: Renderer, tmp_path: Path) -> None:
    config = make_config(tmp_path, policy, "algo=dpo", "algo.data=x", "algo.loss_type=exo_pair")
    with pytest.raises(UserError, match="TRL refuses these settings: Label smoothing"):
        train(config, policy, renderer, tmp_path)


def test_we_know_exactly_the_losses_that_trl_knows() -> None:
    import inspect
    import re

    source = inspect.getsource(DPOTrainer._compute_loss)
    assert set(re.findall(r'loss_type == "(\w+)"', source)) == set(LOSS_TYPES)


def test_micro_batches_by_hand() -> None:
    # 8 pairs of two sequences of 50 tokens: 100 tokens a pair, so 4 pairs fit into 400
    assert micro_batches(8, 50, 2, 400) == (4, 2)
    assert micro_batches(8, 50, 2, 399) == (2, 4)
    assert micro_batches(6, 50, 1, 10_000) == (6, 1)
    assert micro_batches(6, 50, 1, 10) == (1, 6)  # not even one fits: one at a time


@settings(deadline=None)
@given(
    batch=st.integers(1, 64), longest=st.integers(1, 300), tokens=st.integers(1, 5000),
    sequences=st.sampled_from([1, 2]),
)  # fmt: skip
def test_micro_batches_make_up_the_batch_within_the_budget(
    batch: int, longest: int, sequences: int, tokens: int
) -> None:
    rows, passes = micro_batches(batch, longest, sequences, tokens)
    assert rows * passes == batch
    assert rows == 1 or rows * sequences * longest <= tokens


def test_the_longest_row_counts_prompt_and_longer_side() -> None:
    pair = {"prompt_ids": [[1], [1, 2]], "chosen_ids": [[3], [3]], "rejected_ids": [[4] * 5, [4]]}
    assert longest_row(pair) == 6
    assert longest_row({"input_ids": [[1], [1, 2]], "completion_mask": [[1], [1, 1]]}) == 2
    assert longest_row({"chosen_ids": [[1, 2]], "rejected_ids": [[1]]}) == 2
