"""A random 0.1 M-parameter Qwen3 with a byte tokenizer, and a real engine that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rltrain.config.rollout import EngineConfig
from rltrain.rollout.engine_client import ClientConfig, EngineClient
from rltrain.rollout.engine_server import EngineServer, EngineSpec

MARKS = ("<|end|>", "<|pad|>", "<|user|>", "<|assistant|>")
END = 256
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
)
CONFIG = EngineConfig(kv_cache_mb=64, start_timeout_s=120)


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {mark: END + i for i, mark in enumerate(MARKS)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=MARKS[0],
        pad_token=MARKS[1],
        additional_special_tokens=list(MARKS[2:]),
    )
    made.chat_template = TEMPLATE
    return made


def tiny_model(seed: int = 0, *, tied: bool = True) -> Qwen3ForCausalLM:
    """Random weights, wide enough that two seeds disagree by nats."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=END + len(MARKS), hidden_size=64, intermediate_size=128,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
            max_position_embeddings=512, tie_word_embeddings=tied, initializer_range=0.2,
            eos_token_id=END, pad_token_id=END + 1, bos_token_id=None,
        )
    ).eval()  # fmt: skip


def save_tiny(folder: Path, seed: int = 0) -> Path:
    tiny_model(seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@contextmanager
def serving(folder: Path, *, lora_rank: int | None = None) -> Iterator[EngineServer]:
    model = save_tiny(folder / "model")
    spec = EngineSpec(model=model, dtype="float32", lora_rank=lora_rank)
    server = EngineServer(CONFIG, spec, folder / "engine.log")
    try:
        server.start()
        print(f"\nengine ready after {server.wait_ready():.1f} s")
        yield server
    finally:
        server.stop()


def client(server: EngineServer, **changes: object) -> EngineClient:
    text = tokenizer()
    settings = {"urls": (server.url,), "api_key": server.api_key, "stop_ids": (END,)} | changes
    return EngineClient(
        ClientConfig(**settings),  # type: ignore[arg-type]
        lambda ids: text.decode(ids, skip_special_tokens=True),
    )


@torch.no_grad()
def hf_logprobs(
    model: torch.nn.Module, prompt: tuple[int, ...], completion: tuple[int, ...], temperature: float
) -> torch.Tensor:
    """log_softmax(logits / T) of each completion token: `[len(completion)]`."""
    ids = torch.tensor([[*prompt, *completion]])
    rows = model(ids).logits[0, len(prompt) - 1 : -1].float() / temperature
    return rows.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]
