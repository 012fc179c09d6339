"""The training process of an offline run: from a run directory with data to a checkpoint."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rltrain.errors import UserError
from rltrain.launch.export import export_run
from rltrain.launch.offline import DATA
from rltrain.launch.offline_data import read_source
from rltrain.launch.offline_learner import learn
from rltrain.offline.rows import write_rows
from rltrain.rewards import RewardModelCheck
from rltrain.rollout.render import Renderer
from rltrain.rundir import RunDir, create_run
from rltrain.track import read_fact, read_metrics
from rltrain.train.checkpoint import latest_checkpoint, verify_checkpoint
from tests.offline.offline_makers import ASKED, RIGHT, WRONG, make_config, make_source, member


def trained(folder: Path, policy: Path, method: str, *overrides: str) -> RunDir:
    """A run whose data was selected from stored rollouts, after its training process."""
    source = make_source(folder, policy)
    config = make_config(
        folder, policy, f"algo={method}", f"algo.data=run:{source.path}", f"name={method}",
        *overrides,
    )  # fmt: skip
    rows, _ = read_source(config)
    run = create_run(config)
    write_rows(run.path / DATA, rows)
    learn(str(run.path), str(policy))
    return run


def nll(model: Any, renderer: Renderer, text: str) -> float:
    """Of a whole answer to the first prompt."""
    prompt = renderer.prompt(member("", 0.0).judged.episode.task.prompt)
    ids = [*renderer.tokenizer.encode(text, add_special_tokens=False), *renderer.stop_ids]
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + ids])).logits[0, :-1].log_softmax(-1)
    return -sum(float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))


@pytest.mark.parametrize(
    ("method", "overrides"),
    [("sft", []), ("dpo", []), ("dpo", ["algo.loss_type=ipo", "algo.beta=0.2"])],
    ids=["sft", "dpo", "dpo with ipo"],
)
def test_a_policy_learns_from_stored_rollouts_and_is_saved_whole(
    method: str, overrides: list[str], policy: Path, renderer: Renderer, tmp_path: Path
) -> None:
    run = trained(tmp_path, policy, method, *overrides)
    checkpoint = latest_checkpoint(run.checkpoints)
    assert checkpoint is not None and verify_checkpoint(checkpoint) == 6
    rows = read_metrics(run.metrics).rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    before = AutoModelForCausalLM.from_pretrained(policy)
    after = AutoModelForCausalLM.from_pretrained(export_run(run, run.path))
    gap = [nll(m, renderer, WRONG) - nll(m, renderer, RIGHT) for m in (before, after)]
    assert gap[1] > gap[0] + 1, "the right answer gained on the wrong one, in nats"
    facts = read_fact(run.path, "offline")
    assert facts is not None
    assert (facts["method"], facts["rows"], facts["start"]) == (method, 40, str(policy))
    assert facts["tokenized"] == {"as_sampled": 40 if method == "sft" else 80}
    assert facts["epochs"] == 6 * 8 / 40
    assert facts.get("beta") == {"sft": None, "dpo": 0.2 if overrides else 0.1}[method]


def test_with_lora_an_adapter_is_trained_saved_and_mergeable(
    policy: Path, renderer: Renderer, tmp_path: Path
) -> None:
    run = trained(tmp_path, policy, "dpo", "lora=rank16", "train.lr=1e-2")
    assert export_run(run, run.path).name == "adapter"
    merged = AutoModelForCausalLM.from_pretrained(export_run(run, run.path, merged=True))
    before = AutoModelForCausalLM.from_pretrained(policy)
    assert nll(merged, renderer, RIGHT) < nll(before, renderer, RIGHT)
    embeddings = [m.get_input_embeddings().weight for m in (before, merged)]
    assert torch.equal(*embeddings), "only the adapter was trained"


@pytest.mark.parametrize("lora", ["none", "rank16"])
def test_a_reward_model_learns_the_ranking_and_serves_as_a_gate(
    lora: str, policy: Path, tmp_path: Path
) -> None:
    run = trained(
        tmp_path, policy, "reward_model", "max_steps=20", "train.lr=1e-2", f"lora={lora}"
    )
    facts = read_fact(run.path, "offline")
    assert facts is not None
    ranking = facts["ranking"]["after"]
    assert ranking["n"] >= 1 and ranking["accuracy"] == 1.0
    assert facts["rows"] + ranking["n"] == len(ASKED)
    folder = export_run(run, run.path)
    assert folder.name == "model"
    gate = RewardModelCheck(str(folder), pass_at=0.5)
    task = member("", 0.0).judged.episode.task
    good, bad = (asyncio.run(gate(task, text.upper())) for text in (RIGHT, WRONG))
    assert good.passed and not bad.passed and 0 <= bad.score < 0.5 < good.score <= 1
    stamp = json.loads((folder / "config.json").read_text())["rltrain_reward"]
    assert gate.version == good.version == stamp["version"]


def test_rows_that_all_do_not_fit_are_one_sentence(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none fits into model.max_length=8 tokens"):
        trained(tmp_path, policy, "dpo", "model.max_length=8", "rollout.max_new_tokens=4")
