"""The training process of an offline run: data.jsonl -> token ids -> TRL -> a checkpoint."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rltrain.config import RunConfig
from rltrain.errors import UserError
from rltrain.launch.offline import DATA
from rltrain.offline import tokens
from rltrain.offline.rows import SIDES, Row, read_rows
from rltrain.offline.trainers import longest_row, make_trainer
from rltrain.report import wilson
from rltrain.rewards.reward_model import Scorer, stamp
from rltrain.rollout.render import Renderer
from rltrain.rundir import RunDir
from rltrain.track import FanOut, JsonlTracker, WandbTracker, write_fact
from rltrain.train.checkpoint import retain, save_checkpoint
from rltrain.train.model import attention_kind, load_policy, peft_config, pick_device

FEWEST_PAIRS = 2
"""Pairs that a scale of values can be measured on."""


def learn(run_dir: str, folder: str) -> None:
    """Train the run's method from the model in `folder`; leaves metrics, facts and a checkpoint.

    Raises:
        UserError: if no row fits the model, TRL refuses the settings, or the loss is not finite.
    """
    run = RunDir(Path(run_dir))
    config = run.load_config()
    torch.set_num_threads(config.train.threads)
    rows = read_rows(run.path / DATA, config.algo.method)
    train = _reward_model if config.algo.method == "reward_model" else _policy
    facts = train(config, run, folder, rows)
    about: dict[str, Any] = {"method": config.algo.method, "start": folder}
    about["trl"] = config.algo.trl
    if config.algo.method == "dpo":
        about |= {"loss_type": config.algo.loss_type, "beta": config.algo.beta}
    write_fact(run.path, "offline", {**about, **facts})


def _policy(config: RunConfig, run: RunDir, folder: str, rows: list[Row]) -> dict[str, Any]:
    """SFT and DPO: from the policy, on exactly the tokens that were sampled."""
    renderer = Renderer.load(folder)
    model = load_policy(folder, config.train.model_copy(update={"lora": None}))
    method = config.algo.method
    columns, counts = tokens.completion_columns(
        rows, SIDES[method], renderer, config.model.max_length
    )
    if method == "sft":
        columns = tokens.sft_columns(columns)
    lora = config.train.lora
    adapter = peft_config(lora) if lora else None
    _fit(config, run, (model, renderer), columns, adapter, finish=lambda trainer: None)
    return _data_facts(config, columns, counts)


def _reward_model(config: RunConfig, run: RunDir, folder: str, rows: list[Row]) -> dict[str, Any]:
    """A classifier with one output on top of the policy's body, its scale stamped in the end."""
    renderer = Renderer.load(folder)
    model = _classifier(config, folder, renderer)
    scorer = Scorer(model, renderer.tokenizer)
    pairs, counts = tokens.judged_texts(rows)
    training, held = tokens.split_tasks(pairs)
    columns, more = tokens.judged_columns(training, scorer.ids, config.model.max_length)
    before = _values(scorer, held)
    lora = config.train.lora

    def finish(trainer: Any) -> None:
        if lora:  # a gate loads one whole model
            trainer.model = trainer.model.merge_and_unload()
        scorer.model = trainer.model
        measured = held if len(held) >= FEWEST_PAIRS else training
        stamp(trainer.model, [v for pair in _values(scorer, measured) for v in pair])

    adapter = peft_config(lora, "SEQ_CLS") if lora else None
    _fit(config, run, (model, renderer), columns, adapter, finish)
    ranking = {"before": _ranking(before), "after": _ranking(_values(scorer, held))}
    return {**_data_facts(config, columns, counts + more), "ranking": ranking}


def _classifier(config: RunConfig, folder: str, renderer: Renderer) -> Any:
    from transformers import AutoModelForSequenceClassification

    device = pick_device(config.train.device)
    torch.manual_seed(config.seed)  # the new head is drawn at random
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, attn_implementation=attention_kind(device)
    )
    pad, end = renderer.tokenizer.pad_token_id, renderer.tokenizer.eos_token_id
    model.config.pad_token_id = end if pad is None else pad  # it reads the last token before them
    return model.to(device)


def _fit(
    config: RunConfig,
    run: RunDir,
    policy: tuple[Any, Renderer],
    columns: tokens.Columns,
    adapter: Any,
    finish: Callable[[Any], None],
) -> None:
    """Run TRL's trainer to the end, then save. finish: what is done to the trainer before that."""
    if not next(iter(columns.values())):
        raise UserError(
            "no row is left to train on: none fits into "
            f"model.max_length={config.model.max_length} tokens, or no side could be used"
        )
    model, renderer = policy
    wandb = WandbTracker(
        run.path, config.track, name=run.path.name, config=config.model_dump(mode="json")
    )
    sinks = FanOut([JsonlTracker(run.metrics), wandb])

    def save(step: int) -> None:
        save_checkpoint(run.checkpoints / f"step-{step:05d}", trainer, renderer, step)
        retain(run.checkpoints, config.train.keep_checkpoints)

    try:
        with tempfile.TemporaryDirectory(prefix="rltrain-trl-") as work:
            parts = (model, renderer.tokenizer)
            trainer = make_trainer(config, parts, columns, Path(work), sinks, save, adapter)
            trainer.train()
        finish(trainer)
        save(config.max_steps)
    finally:
        sinks.close()


def _data_facts(
    config: RunConfig, columns: tokens.Columns, counts: dict[str, int]
) -> dict[str, Any]:
    count = len(next(iter(columns.values())))
    return {
        "rows": count,
        "longest_tokens": longest_row(columns),
        "epochs": config.max_steps * config.algo.batch_size / count,
        "tokenized": dict(sorted(counts.items())),
    }


def _values(
    scorer: Scorer, pairs: Sequence[tuple[tokens.Row, str, str]]
) -> list[tuple[float, float]]:
    """Values of (chosen, rejected), asked as the gate will ask."""
    return [
        (scorer.value(messages, chosen), scorer.value(messages, rejected))
        for messages, chosen, rejected in (
            (tokens.messages_of(row), chosen, rejected) for row, chosen, rejected in pairs
        )
    ]


def _ranking(values: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Share of held-out pairs, one per task, in which the chosen answer has the higher value."""
    right = sum(chosen > rejected for chosen, rejected in values)
    n = len(values)
    return {
        "accuracy": right / n if n else None,
        "n": n,
        "ci95": list(wilson(right, n)) if n else None,
    }
