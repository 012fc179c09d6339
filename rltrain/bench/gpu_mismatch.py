"""FP16 against BF16 on one model and one text: the learner in both, against itself in fp32, and
against vLLM where it can be imported.

d = |log-probability - reference|, per token in nats; k3 = mean(e^d - 1 - d), with d's sign; the
last column is of a whole sequence's ratio, which is what sequence-level corrections see.
"""

from __future__ import annotations

import importlib.util
import tempfile
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rltrain.bench.gpu_learner import batch_of, qwen
from rltrain.bench.gpu_timing import Stage, attempt

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def describe(found: Tensor, expected: Tensor, sequences: int) -> dict[str, float]:
    """Both [N], sequences of one length one after another."""
    d = found.double() - expected.double()
    whole = d.view(sequences, -1).sum(1)
    return {
        "mean d": float(d.abs().mean()),
        "p99 d": float(d.abs().quantile(0.99)),
        "max d": float(d.abs().max()),
        "k3": float((d.exp() - 1 - d).mean()),
        "max log sequence ratio": float(whole.abs().max()),
    }


def _scores(stage: Stage, model: Any, batch: Any, compute: str) -> Tensor:
    """Log-probabilities [N] of all micro-batches, computed as in training."""
    from rltrain.config.precision import PrecisionConfig
    from rltrain.train.learner import _to
    from rltrain.train.logprobs import token_scores
    from rltrain.train.precision import Precision

    chosen = PrecisionConfig.model_validate({"compute": compute})
    precision = Precision(chosen, stage.device)
    with torch.no_grad(), precision.compute():
        parts = [
            token_scores(model, _to(micro, stage.device), 1.0).logprobs
            for micro in batch.micro_batches
        ]
    return torch.cat(parts)


def mismatch(stage: Stage) -> dict[str, Any]:
    """Learner against reference in both dtypes, then against vLLM in both, if there is one."""
    sequences, length = stage.size(16, 2), stage.size(2048, 24)
    model = qwen(stage).eval()
    vocabulary = model.config.vocab_size
    batch = batch_of(vocabulary, sequences, length, prompt=1)
    expected = _scores(stage, model, batch, "fp32")
    rows = []
    for compute in DTYPES:
        scored = _scores(stage, model, batch, compute)
        line = {"learner": compute, "against": "the learner, fp32"}
        rows.append(line | describe(scored, expected, sequences))
    note = "vLLM: toy sizes start no engine"
    if not stage.tiny:
        note = "vLLM: cannot be imported here"
        if importlib.util.find_spec("vllm") is not None:
            note = "vLLM: prompts scored by prefill, one engine per dtype"
            for compute in DTYPES:
                scored = _scores(stage, model, batch, compute)
                line = {"learner": compute, "against": f"vLLM {compute}"}
                compare = partial(_against_vllm, model, batch, compute, scored, sequences)
                rows.append(line | attempt(stage, compare))
    return {"rows": rows, "note": note}


def _against_vllm(
    model: Any, batch: Any, compute: str, scored: Tensor, sequences: int
) -> dict[str, float]:
    return describe(scored, _vllm(model, batch, compute), sequences)


def _vllm(model: Any, batch: Any, compute: str) -> Tensor:
    """The engine's log-probabilities [N] of the same tokens, as prompts."""
    from vllm import LLM, SamplingParams

    lines = [line for micro in batch.micro_batches for line in micro.ids.tolist()]
    with tempfile.TemporaryDirectory() as folder:
        weights = {name: w.to(DTYPES[compute]) for name, w in model.state_dict().items()}
        model.save_pretrained(folder, state_dict=weights)
        engine = LLM(
            folder, dtype=str(DTYPES[compute]).removeprefix("torch."), skip_tokenizer_init=True,
            max_model_len=len(lines[0]) + 8, gpu_memory_utilization=0.3, enforce_eager=True,
            enable_prefix_caching=False,
        )  # fmt: skip
        asked = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        replies = engine.generate([{"prompt_token_ids": line} for line in lines], asked)
    values = [
        entry[token].logprob
        for line, reply in zip(lines, replies, strict=True)
        for token, entry in zip(line[1:], reply.prompt_logprobs[1:], strict=True)
    ]
    del engine
    torch.cuda.empty_cache()
    return torch.tensor(values, device=next(model.parameters()).device)
