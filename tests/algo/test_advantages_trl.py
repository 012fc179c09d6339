"""Parity with TRL 1.16: its own trainers score given completions, and we get their advantages.

A real `GRPOTrainer` and a real `RLOOTrainer` on a tiny policy. Only sampling is replaced, by TRL's
own hook in one case and a subclass in the other: the numbers come out of TRL's
`_generate_and_score_completions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from rltrain.algo.advantages import ADVANTAGES, GroupRewards
from tests.makers import VOCAB, tiny_policy

EPS = 1e-4
"""What TRL adds to a standard deviation."""
SIBLINGS = 4
FORMAT = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.5, 0.0, 1.0, 1.0, 1.0, 1.0]
RIGHT = [0.25, 1.0, 0.0, 0.0, 0.0, 0.75, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
WEIGHTS = {"format": 0.5, "right": 2.0}
"""Three groups of four with two rewards each, the last without any spread."""


def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, VOCAB)}}
    inner = Tokenizer(WordLevel(words, unk_token="w2"))
    inner.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="w2"
    )


def rewards() -> list[Any]:
    def format(completions: list[str], **_: Any) -> list[float]:
        return FORMAT[: len(completions)]

    def right(completions: list[str], **_: Any) -> list[float]:
        return RIGHT[: len(completions)]

    return [format, right]


def sampled(prompts: Sequence[str], _: Any = None) -> dict[str, Any]:
    count = len(prompts)
    return {
        "prompt_ids": [[5, 6]] * count,
        "completion_ids": [[7, 8, 1]] * count,
        "logprobs": [[-1.0] * 3] * count,
    }


def options(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "use_cpu": True, "bf16": False, "beta": 0.0,
        "report_to": "none", "disable_tqdm": True, "num_generations": SIBLINGS,
        "per_device_train_batch_size": len(FORMAT), "max_completion_length": 4,
        "reward_weights": list(WEIGHTS.values()), "gradient_checkpointing": False,
    }  # fmt: skip


def parts() -> dict[str, Any]:
    prompts = [f"w{5 + i // SIBLINGS}" for i in range(len(FORMAT))]
    return {
        "model": tiny_policy(),
        "reward_funcs": rewards(),
        "processing_class": tokenizer(),
        "train_dataset": Dataset.from_dict({"prompt": prompts}),
    }


class FixedRLOO(RLOOTrainer):  # type: ignore[misc]
    """RLOO has no hook for sampling; everything behind it is TRL's."""

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        given = sampled(prompts)
        completions = ["w7 w8"] * len(prompts)
        return given["prompt_ids"], given["completion_ids"], completions


def trl_advantages(trainer: Any) -> list[float]:
    trainer.model.train()
    inputs = [{"prompt": f"w{5 + i // SIBLINGS}"} for i in range(len(FORMAT))]
    with torch.no_grad():
        scored = trainer._generate_and_score_completions(inputs)
    return [float(a) for a in scored["advantages"]]


def ours(name: str, **args: float) -> list[float]:
    rows = zip(FORMAT, RIGHT, strict=True)
    summed = [WEIGHTS["format"] * f + WEIGHTS["right"] * r for f, r in rows]
    groups = [
        GroupRewards(
            rewards=tuple(summed[i : i + SIBLINGS]),
            lengths=(3,) * SIBLINGS,
            components={
                "format": tuple(FORMAT[i : i + SIBLINGS]),
                "right": tuple(RIGHT[i : i + SIBLINGS]),
            },
        )
        for i in range(0, len(FORMAT), SIBLINGS)
    ]
    return [a for row in ADVANTAGES[name](groups, **args) for a in row]


@pytest.fixture(scope="module")
def grpo_trainer(tmp_path_factory: pytest.TempPathFactory) -> GRPOTrainer:
    args = GRPOConfig(**options(tmp_path_factory.mktemp("grpo")))
    return GRPOTrainer(args=args, rollout_func=sampled, **parts())


@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
@pytest.mark.parametrize(
    ("aggregation", "scale", "name", "args"),
    [
        ("sum_then_normalize", "group", "grpo", {"eps": EPS}),
        ("sum_then_normalize", "none", "mean_centred", {}),
        ("sum_then_normalize", "batch", "lite_ppo", {"eps": EPS}),
        ("normalize_then_sum", "group", "gdpo", {"eps": EPS, **WEIGHTS}),
    ],
)
def test_grpo_s_ways_of_scaling_are_trl_s(
    grpo_trainer: GRPOTrainer, aggregation: str, scale: str, name: str, args: dict[str, float]
) -> None:
    grpo_trainer.multi_objective_aggregation, grpo_trainer.scale_rewards = aggregation, scale
    assert ours(name, **args) == pytest.approx(trl_advantages(grpo_trainer), rel=1e-5, abs=1e-5)


def test_leave_one_out_is_trl_s(tmp_path: Path) -> None:
    trainer = FixedRLOO(args=RLOOConfig(**options(tmp_path)), **parts())
    assert ours("rloo") == pytest.approx(trl_advantages(trainer), rel=1e-5, abs=1e-5)
