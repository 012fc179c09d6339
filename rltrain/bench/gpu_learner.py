"""The learner's own step on a model of real shape with random weights: how busy it keeps the GPU,
and how long its weights take to leave it.

FLOPs of a step: 6 P per token for the matrix products of P parameters (the embedding is no
product, the tied head is one), and 12 L D T per token for attention over T tokens, halved because
it is causal. Recomputation, if any, is not counted.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rltrain.bench.gpu_timing import Stage, attempt, peak_tflops, timed

LENGTHS = (1024, 4096, 8192)
TOKENS = 16_384
"""Tokens of a step, whatever the length."""


def qwen(stage: Stage, seed: int = 0) -> Any:
    """Qwen3-0.6B's shape, or a toy's, with random fp32 weights on the device."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    size = stage.size
    config = Qwen3Config(
        vocab_size=size(151_936, 320),
        hidden_size=size(1024, 32),
        intermediate_size=size(3072, 48),
        num_hidden_layers=size(28, 2),
        num_attention_heads=size(16, 2),
        num_key_value_heads=size(8, 1),
        head_dim=size(128, 16),
        max_position_embeddings=size(40_960, 256),
        tie_word_embeddings=True,
        use_cache=False,
        initializer_range=2 / size(1024, 32) ** 0.5,  # logits with a standard deviation of about 2
        attn_implementation="sdpa",
    )
    torch.manual_seed(seed)
    with torch.device(stage.device):
        return Qwen3ForCausalLM(config)


def batch_of(vocabulary: int, sequences: int, length: int, prompt: int) -> Any:
    """Random sequences of one length, all but the prompt trained."""
    from rltrain.algo.aggregation import AGGREGATIONS
    from rltrain.batch.packing import make_batch
    from rltrain.types import Sample

    ids = torch.randint(vocabulary, (sequences, length), generator=torch.Generator().manual_seed(0))
    samples = [
        Sample(
            ids=tuple(line),
            loss_mask=(*[False] * prompt, *[True] * (length - prompt)),
            logprobs=(*[0.0] * prompt, *[-5.0] * (length - prompt)),
            advantages=(*[0.0] * prompt, *[float(i % 2) - 0.5] * (length - prompt)),
            version=0,
            prefix=prompt,
            family=i,
        )
        for i, line in enumerate(ids.tolist())
    ]
    return make_batch(
        samples,
        AGGREGATIONS["token_mean"],
        horizon=length,
        shared_prefix=False,
        limit=max(length, 8192),
    )


def flops(model: Any, tokens: int, length: int) -> float:
    """Of one step over `tokens` tokens in sequences of `length`."""
    config = model.config
    # The embedding is tied: it is counted once, as the head's product.
    products = sum(p.numel() for p in model.parameters())
    attention = config.num_hidden_layers * config.num_attention_heads * config.head_dim * length
    return float(6 * tokens * (products + attention))


def learner(stage: Stage) -> dict[str, Any]:
    """Steps by dtype, head and length."""
    cases = [
        (compute, kernel, length)
        for compute in (("bf16",) if stage.device.type == "cpu" else ("fp16", "bf16"))
        for kernel in ("auto", "plain", "chunked")
        for length in (LENGTHS if not stage.tiny else (24,))
        if kernel == "auto" or length == LENGTHS[1] or stage.tiny
    ]
    rows = []
    for compute, kernel, length in cases:
        line = {"dtype": compute, "head": kernel, "length": length}
        rows.append(line | attempt(stage, partial(_case, stage, compute, kernel, length)))
        if stage.device.type == "cuda":
            torch.cuda.empty_cache()
    return {"rows": rows}


def _case(stage: Stage, compute: str, kernel: str, length: int) -> dict[str, Any]:
    from rltrain.config.algo import AlgoConfig, TrainConfig
    from rltrain.config.precision import PrecisionConfig
    from rltrain.train.learner import PolicyLearner
    from rltrain.train.objective import Objective

    model = qwen(stage)
    sequences = max(1, stage.size(TOKENS, 48) // length)
    batch = batch_of(model.config.vocab_size, sequences, length, prompt=length // 8)
    work = PolicyLearner(
        model,
        Objective.from_config(AlgoConfig(), 1.0),
        TrainConfig.model_validate({"logprob_kernel": kernel}),
        1_000,
        PrecisionConfig.model_validate({"compute": compute}),
    )
    found = timed(stage, lambda: work.step(batch), 6.0)
    tokens = sequences * length
    rate = flops(model, tokens, length) / found["median_ms"] / 1e9
    peak = peak_tflops()
    return {
        "step ms": found["median_ms"],
        "tokens/s": tokens / found["median_ms"] * 1e3,
        "TFLOP/s": rate,
        "MFU": rate / peak if peak else None,
        "peak MiB": found.get("peak_mib"),
    }


def push(stage: Stage) -> dict[str, Any]:
    """Seconds for all weights to leave the learner: to the host in the engine's dtype, digested,
    written to memory-backed files, read and digested again."""
    from safetensors.torch import load_file, save_file

    from rltrain.sync.digest import difference, digests
    from rltrain.sync.tensors import full_tensors

    model = qwen(stage)
    memory = Path("/dev/shm")
    times: dict[str, float] = {}

    def clock(name: str, start: float) -> float:
        stage.sync()
        times[f"{name} s"] = time.perf_counter() - start
        return time.perf_counter()

    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        at = time.perf_counter()
        tensors = dict(full_tensors(model, torch.float16))
        at = clock("to host", at)
        sent = digests(tensors)
        at = clock("digest", at)
        save_file(tensors, Path(folder) / "weights")
        at = clock("write", at)
        received = load_file(Path(folder) / "weights")
        at = clock("read", at)
        assert difference(sent, digests(received)) is None
        clock("digest again", at)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    return {"rows": [{"MiB": size / 2**20, **times, "all s": sum(times.values())}]}
