"""A small untrained policy that never ends a turn, so that every answer has exactly as many tokens
as its budget, whoever samples.

The end-of-turn token must be in the vocabulary (vLLM checks), so it is made impossible instead: one
hidden dimension is 1 for every token and -1 for this one, and with tied embeddings its logit then
lies about 30 below all others, a chance of 1e-13.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from rltrain.protocols import Environment


def save_endless(folder: Path, env: Environment, *, max_length: int = 256) -> int:
    """Write model and tokenizer; returns the number of parameters.

    Qwen3 architecture, hidden size 256, four layers, byte-level BPE of the environment's prompts.
    """
    import torch

    from rltrain.warmup.sft import Shape, new_model
    from rltrain.warmup.tokenizer import train_tokenizer

    texts = [m.content for t in itertools.islice(env.tasks("train", 0), 2_000) for m in t.prompt]
    tokenizer = train_tokenizer(texts, 1024, max_length)
    model = new_model(tokenizer, Shape(hidden_size=256, layers=4, max_length=max_length), seed=0)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings[:, 0] = 1.0
        embeddings[tokenizer.eos_token_id, 0] = -1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())
