"""TRL's trainers from a run's config: the same learning rate, precision, seed and steps as online.

Rows come in as token ids (`tokens`), so nothing is tokenized again inside TRL. What TRL logs goes
to the run's trackers under the run's own names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from rltrain.config import RunConfig
from rltrain.errors import UserError
from rltrain.offline.tokens import Columns
from rltrain.protocols import Tracker

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
LOSS_TYPES = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
)  # fmt: skip
"""What `DPOTrainer` of TRL 1.16 knows; it would complain only at the first step."""
OWN_NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
    "entropy": "policy/entropy",
}
"""TRL's name of a metric to ours; all others are logged as `trl/<name>`."""


class _PairTrainer(DPOTrainer):
    """DPOTrainer over pairs that are tokenized already, exactly as they were sampled."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


class Kind(NamedTuple):
    """TRL's classes for a method, and how many sequences a row of its data has."""

    arguments: Any
    trainer: Any
    sequences: int


KINDS = {
    "sft": Kind(SFTConfig, SFTTrainer, 1),
    "dpo": Kind(DPOConfig, _PairTrainer, 2),
    "reward_model": Kind(RewardConfig, RewardTrainer, 2),
}


class _Log(TrainerCallback):
    """One row per optimizer step, and checkpoints between. Stops on a loss that is not finite."""

    def __init__(self, tracker: Tracker, save: Callable[[int], None], every: int) -> None:
        self.tracker = tracker
        self.save = save
        self.every = every
        self._tokens = 0.0
        self._last = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:  # the summary that ends a training
            return
        now = time.perf_counter()
        took, self._last = now - self._last, now
        self.tracker.log(state.global_step, self._row(logs, took))
        if not math.isfinite(float(logs["loss"])):
            raise UserError(
                f"the loss is not finite at step {state.global_step}; lower train.lr, or choose "
                "precision=fp32"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        if self.every and step % self.every == 0 and step < state.max_steps:
            self.save(step)

    def _row(self, logs: Mapping[str, Any], step_s: float) -> dict[str, float]:
        values = {name: float(value) for name, value in logs.items()}
        total = values.pop("num_tokens", self._tokens)  # TRL counts from the start of training
        row = {OWN_NAMES.get(name, f"trl/{name}"): value for name, value in values.items()}
        row |= {"tokens/trained": total - self._tokens, "time/step_s": step_s}
        self._tokens = total
        return row


def check(config: RunConfig, on_cpu: bool) -> None:
    """Refuse early what TRL would refuse once models are loaded. Raises `UserError`."""
    algo = config.algo
    if config.precision.compute == "fp16" and on_cpu:
        raise UserError(
            "TRL trains in fp16 on a GPU only; use precision=bf16 or precision=fp32"
        )
    if config.precision.head == "fp32":
        raise UserError("precision.head=fp32 is not for methods that TRL trains; leave it out")
    wanted = (algo.loss_type,) if isinstance(algo.loss_type, str) else algo.loss_type
    for name in wanted if algo.method == "dpo" else ():
        if name not in LOSS_TYPES:
            raise UserError(
                f"config algo.loss_type: {name!r} is not one of {', '.join(LOSS_TYPES)}"
            )
    known = {field.name for field in fields(KINDS[algo.method].arguments)}
    for name in algo.trl:
        if name not in known:
            target = KINDS[algo.method].arguments.__name__
            raise UserError(f"config algo.trl: TRL's {target} has no argument {name!r}")
        if name in _arguments(config, Path(), (1, 1), on_cpu):
            raise UserError(f"config algo.trl.{name}: rltrain sets this from its own keys")


def micro_batches(batch_size: int, longest: int, sequences: int, tokens: int) -> tuple[int, int]:
    """(rows per forward pass, passes per step) with rows x passes = batch_size exactly.

    The largest divisor of the batch whose padded size, `longest` tokens for each of `sequences`
    per row, stays within `tokens`; one row at a time if even two do not fit.
    """
    fits = [
        rows
        for rows in range(1, batch_size + 1)
        if batch_size % rows == 0 and rows * sequences * longest <= tokens
    ]
    rows = max(fits, default=1)
    return rows, batch_size // rows


def _arguments(
    config: RunConfig, folder: Path, batches: tuple[int, int], on_cpu: bool
) -> dict[str, Any]:
    """What our own keys decide of TRL's arguments."""
    train, algo = config.train, config.algo
    own: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": config.max_steps,
        "per_device_train_batch_size": batches[0],
        "gradient_accumulation_steps": batches[1],
        "learning_rate": train.lr,
        "lr_scheduler_type": SCHEDULES[train.decay],
        "warmup_steps": train.warmup_steps,
        "adam_beta1": train.betas[0],
        "adam_beta2": train.betas[1],
        "adam_epsilon": train.eps,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "bf16": config.precision.compute == "bf16",
        "fp16": config.precision.compute == "fp16",
        "use_cpu": on_cpu,
        "seed": config.seed,
        "data_seed": config.seed,
        "max_length": None,  # rows that are too long were left out and counted
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would show the last finite loss in place of a NaN
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    if algo.method == "dpo":
        types = [algo.loss_type] if isinstance(algo.loss_type, str) else list(algo.loss_type)
        own |= {"loss_type": types, "beta": algo.beta}
    if algo.method == "sft":
        own["completion_only_loss"] = True
    return own


def make_trainer(
    config: RunConfig,
    policy: tuple[Any, Any],
    columns: Columns,
    folder: Path,
    tracker: Tracker,
    save: Callable[[int], None],
    adapter: Any = None,
) -> Any:
    """TRL's trainer for the run's method, ready for `.train()`.

    Args:
        policy: (model with fp32 parameters on its device, tokenizer).
        columns: token ids as `tokens` makes them for the method.
        folder: where TRL may put what it needs; nothing of the run's own lies there.
        tracker: gets one row of metrics per optimizer step.
        save: called with the step for every checkpoint that `train.checkpoint_every` asks for.
        adapter: a PEFT config, to train low-rank adapters in place of the model.

    Raises `UserError` with TRL's own words if it refuses the settings.
    """
    model, tokenizer = policy
    method, on_cpu = config.algo.method, next(model.parameters()).device.type == "cpu"
    kind = KINDS[method]
    batches = micro_batches(
        config.algo.batch_size,
        longest_row(columns),
        kind.sequences,
        config.train.micro_batch_tokens,
    )
    given = {"gradient_checkpointing": False, **config.algo.trl}
    try:
        return kind.trainer(
            model=model,
            args=kind.arguments(**_arguments(config, folder, batches, on_cpu), **given),
            train_dataset=Dataset.from_dict(dict(columns)),
            processing_class=tokenizer,
            callbacks=[_Log(tracker, save, config.train.checkpoint_every)],
            peft_config=adapter,
        )
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"TRL refuses these settings: {str(error).splitlines()[0]}") from error


def longest_row(columns: Columns) -> int:
    """Tokens of the longest sequence that a row becomes."""
    if "input_ids" in columns:
        return max(map(len, columns["input_ids"]))
    chosen, rejected = columns["chosen_ids"], columns["rejected_ids"]
    prompts: Sequence[Sequence[int]] = columns.get("prompt_ids") or [[]] * len(chosen)
    sides = zip(prompts, chosen, rejected, strict=True)
    return max(len(prompt) + max(len(a), len(b)) for prompt, a, b in sides)
