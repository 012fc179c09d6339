"""TRL's side of `rltrain.bench.trl`, alone: `python -m rltrain.bench.trl_side SPEC`.

As plain as TRL goes on a CPU: generation by transformers, parameters in fp32 (under bf16 autocast
if asked, as `GRPOConfig(bf16=True)` does it), no reference model, no logging, no
gradient checkpointing, one optimizer step per generated batch.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from rltrain.bench.environment import checksum
from rltrain.build import environment
from rltrain.config.rollout import EnvironmentConfig


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Wall-clock seconds of every optimizer step, sampling included."""

    def __init__(self) -> None:
        self.step_s: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.step_s.append(time.perf_counter() - self._started)


class _Reward:
    """The shared reward, counting the sampled tokens on its way."""

    __name__ = "checksum"

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def __call__(
        self, completions: list[Any], completion_ids: list[list[int]], **_: Any
    ) -> list[float]:
        self.tokens.append(sum(map(len, completion_ids)))
        return checksum(completions)


def prompts(given: dict[str, Any], count: int) -> Dataset:
    """The first tasks of the train split with seed 0: those that our dispatcher leases."""
    tasks = environment(EnvironmentConfig(**given)).tasks("train", 0)
    rows = [
        [{"role": m.role, "content": m.content} for m in task.prompt]
        for task in itertools.islice(tasks, count)
    ]
    return Dataset.from_dict({"prompt": rows})


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Train for `steps` steps. Returns step_s and tokens, each with one value per step."""
    torch.set_num_threads(spec["threads"])
    model = AutoModelForCausalLM.from_pretrained(
        spec["model"], dtype=torch.float32, attn_implementation=spec["attention"]
    )
    sequences = spec["groups"] * spec["group_size"]
    clock, reward = _Clock(), _Reward()
    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=spec["precision"] == "bf16",
            max_steps=spec["steps"],
            per_device_train_batch_size=spec["micro_batch"],
            gradient_accumulation_steps=sequences // spec["micro_batch"],
            num_generations=spec["group_size"],
            max_completion_length=spec["tokens"],
            temperature=1.0,
            beta=0.0,
            learning_rate=1e-6,
            gradient_checkpointing=False,
            shuffle_dataset=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=args,
            train_dataset=prompts(spec["environment"], spec["steps"] * spec["groups"]),
            processing_class=AutoTokenizer.from_pretrained(spec["model"]),
            callbacks=[clock],
        ).train()
    return {"step_s": clock.step_s, "tokens": reward.tokens}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    Path(given["report"]).write_text(json.dumps(measure(given)))
