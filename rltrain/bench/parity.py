"""Our loss and its gradient against TRL's own, on the same tiny model and the same answers.

TRL's `GRPOTrainer` scores and weighs the answers itself (`_generate_and_score_completions`, fed
through its `rollout_func`) and computes its own `_compute_loss`; nothing of TRL is written again
here. Ours goes through the real packing and learner. Four policies take part, so that every ratio
differs from 1: one for the reference, one that begins the step, one that is being updated, and the
engine's, which is the second with noise.
"""

from __future__ import annotations

import copy
import os
import random
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rltrain.algo.aggregation import AGGREGATIONS
from rltrain.batch.packing import MicroBatch, make_batch
from rltrain.bench.parity_cases import HORIZON, Case
from rltrain.config.algo import AlgoConfig, TrainConfig
from rltrain.train.learner import PolicyLearner
from rltrain.train.logprobs import token_scores
from rltrain.train.objective import Objective
from rltrain.types import Sample

TEMPERATURE = 0.9
SIBLINGS = 4
LENGTHS = (3, 1, 7, 5, 12, 4, 9, 2)
"""Tokens of each answer; two groups of siblings."""
REWARDS = (1.0, 0.0, 0.5, 0.0, 0.0, 1.0, 0.2, 0.7)
STEP = 0.05
"""Size of the random difference between the policies' weights."""


class Parity(NamedTuple):
    """How far ours is from TRL's, and whether the case exercised anything."""

    loss: float
    """|ours - TRL's| / |TRL's|."""
    gradient: float
    """|ours - TRL's| / |TRL's| over all parameters, Euclidean norm."""
    clipped: float
    """Share of tokens whose gradient the loss removed."""
    masked: float
    """Share of tokens that the correction removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What was sampled, as both sides are given it."""

    prompts: list[list[int]]
    completions: list[list[int]]
    masks: list[list[int]]
    """1 where the policy sampled the token, 0 where a tool spoke."""
    logprobs: list[list[float]]


class Bench:
    """The model, its variants and the answers; made once for all cases."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        from rltrain.warmup.sft import Shape, new_model
        from rltrain.warmup.tokenizer import train_tokenizer

        words = ["to be or not to be that is the question"] * 4
        self.tokenizer = train_tokenizer(words, 280, 64)
        shape = Shape(hidden_size=32, layers=2, heads=2, kv_heads=1, max_length=64)
        model = new_model(self.tokenizer, shape, seed=0)
        with torch.no_grad():  # wider than usual, so that tokens look at one another
            for parameter in model.parameters():
                parameter.mul_(3 if parameter.dim() > 1 else 1)
        model.save_pretrained(folder)
        # Read again, because TRL makes its reference from the folder that a model says it is from.
        self._base = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        self.answers = self._answers()

    def model(self, steps: int) -> Any:
        """Policy 0 is the reference, 1 begins the step, 2 is being updated."""
        model = copy.deepcopy(self._base)
        for number in range(steps):
            nudge(model, number)
        return model

    def _answers(self) -> Answers:
        rng = random.Random(0)
        size = len(self.tokenizer)

        def draw(count: int) -> list[int]:
            return [rng.randrange(6, size) for _ in range(count)]  # 0 to 5 are special tokens

        heads = [draw(6), draw(3)]
        prompts = [heads[i // SIBLINGS] for i in range(len(LENGTHS))]
        completions = [draw(length) for length in LENGTHS]
        masks = [[1] * length for length in LENGTHS]
        masks[2][3:5] = [0, 0]  # what a tool said between two turns
        masks[6][2:3] = [0]
        model = self.model(1)
        logprobs = []
        for head, tail in zip(prompts, completions, strict=True):
            with torch.no_grad():
                rows = model(input_ids=torch.tensor([head + tail])).logits[0] / TEMPERATURE
            said = rows.log_softmax(-1)[range(len(head) - 1, len(head + tail) - 1), tail].tolist()
            logprobs.append([value + rng.gauss(0, 0.4) for value in said])
        return Answers(prompts=prompts, completions=completions, masks=masks, logprobs=logprobs)


def nudge(model: Any, seed: int) -> None:
    """Move every weight by a little, the same way for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(STEP * torch.randn(parameter.shape, generator=generator))


def measure(bench: Bench, case: Case) -> Parity:
    """Compare one case. Both sides start from the files in the bench's folder."""
    loss, gradient, advantages = trl_side(bench, case)
    ours = our_side(bench, case, advantages)
    return Parity(
        loss=abs(ours.loss - loss) / abs(loss),
        gradient=float((ours.gradient - gradient).norm() / gradient.norm()),
        clipped=ours.clipped,
        masked=ours.masked,
    )


def trl_side(bench: Bench, case: Case) -> tuple[float, Tensor, list[float]]:
    """TRL's loss, its gradient as one vector, and the advantages that it computed."""
    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        trainer = _trainer(bench, case, scratch)
        trainer.use_vllm = case.engine  # after the constructor, which would start vLLM
        trainer._last_loaded_step = trainer.state.global_step
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        rows = [{"prompt": "-"} for _ in LENGTHS]
        inputs = trainer._generate_and_score_completions(rows)
        nudge(trainer.model, 1)
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
    return float(loss.detach()), _gradient(trainer.model), inputs["advantages"].tolist()


def _trainer(bench: Bench, case: Case, scratch: str) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl.experimental.gmpo import GMPOConfig, GMPOTrainer

    answers = bench.answers

    def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        return {
            "prompt_ids": answers.prompts,
            "completion_ids": answers.completions,
            "logprobs": answers.logprobs,
            "env_mask": answers.masks,
        }

    def reward(**_: Any) -> list[float]:
        return list(REWARDS)

    settings = GMPOConfig if case.gmpo else GRPOConfig
    make = GMPOTrainer if case.gmpo else GRPOTrainer
    return make(
        model=bench.model(1),
        reward_funcs=reward,
        args=settings(
            output_dir=scratch,
            use_cpu=True,
            bf16=False,
            per_device_train_batch_size=len(LENGTHS),
            num_generations=SIBLINGS,
            num_iterations=2,  # so that it keeps the policy that began the step
            max_completion_length=HORIZON,
            temperature=TEMPERATURE,
            gradient_checkpointing=False,
            report_to="none",
            **{"beta": 0.0, **case.trl},
        ),
        train_dataset=Dataset.from_dict({"prompt": ["-"] * len(LENGTHS)}),
        processing_class=bench.tokenizer,
        rollout_func=rollout,
    )


class Ours(NamedTuple):
    loss: float
    gradient: Tensor
    clipped: float
    masked: float


def our_side(bench: Bench, case: Case, advantages: list[float]) -> Ours:
    """Ours for the same answers, with TRL's advantages: those have parity tests of their own."""
    algo = AlgoConfig(**case.algo)
    objective = Objective.from_config(algo, TEMPERATURE)
    learner = PolicyLearner(bench.model(2), objective, TrainConfig(), max_steps=1)
    batch = make_batch(
        _samples(bench.answers, advantages),
        AGGREGATIONS[algo.aggregation],
        horizon=HORIZON,
        limit=10_000 if case.whole else 30,
        compute_all=True,
    )
    parts = [_policies(bench, micro, algo) for micro in batch.micro_batches]
    results = [
        learner._backward(micro, began_N, reference_N, batch.tokens)[1]
        for micro, (began_N, reference_N) in zip(batch.micro_batches, parts, strict=True)
    ]
    return Ours(
        loss=sum(float(result.loss.detach()) for result in results),
        gradient=_gradient(learner.model),
        clipped=float(torch.cat([result.clipped for result in results]).mean()),
        masked=float((torch.cat([result.weight for result in results]) == 0).float().mean()),
    )


@torch.no_grad()
def _policies(bench: Bench, micro: MicroBatch, algo: AlgoConfig) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the policy that began the step and, for a KL term, of the reference."""
    began_N = token_scores(bench.model(1), micro, TEMPERATURE).logprobs
    if not algo.kl.coef:
        return began_N, None
    return began_N, token_scores(bench.model(0), micro, TEMPERATURE).logprobs


def _samples(answers: Answers, advantages: list[float]) -> list[Sample]:
    samples = []
    rows = zip(
        answers.prompts, answers.completions, answers.masks, answers.logprobs, advantages,
        strict=True,
    )  # fmt: skip
    for number, (head, tail, mask, logprobs, advantage) in enumerate(rows):
        empty = [0.0] * len(head)
        samples.append(
            Sample(
                ids=(*head, *tail),
                loss_mask=(*[False] * len(head), *map(bool, mask)),
                logprobs=(*empty, *logprobs),
                advantages=(*empty, *[advantage] * len(tail)),
                version=0,
                prefix=len(head),
                family=number // SIBLINGS,
            )
        )
    return samples


def _gradient(model: Any) -> Tensor:
    return torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).detach().flatten()
            for p in model.parameters()
        ]
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without TRL's advice on recipes and its notice that `rollout_func` may change."""
    before = os.environ.get("TRL_EXPERIMENTAL_SILENCE")
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if before is None:
            del os.environ["TRL_EXPERIMENTAL_SILENCE"]
        else:
            os.environ["TRL_EXPERIMENTAL_SILENCE"] = before
