"""An engine in this process: samples with transformers, takes pushes by copying the weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rltrain.rollout.render import Renderer
from rltrain.train.model import full_state, inner_model
from rltrain.types import Turn


class TransformersEngine:
    """Implements `protocols.Sampler` and `protocols.WeightSync` over one copy of the policy."""

    def __init__(self, policy: Any, renderer: Renderer, temperature: float) -> None:
        self.model = copy.deepcopy(inner_model(policy)).eval()
        self.renderer = renderer
        self.temperature = temperature
        self.version = -1

    def variant(self, temperature: float) -> TransformersEngine:
        """The same weights, sampled at another temperature; 0 is greedy."""
        other = copy.copy(self)
        other.temperature = temperature
        return other

    async def push(self, model: Any, version: int) -> Mapping[str, float]:
        assert version == self.version + 1, "a version was left out or pushed twice"
        self.model.load_state_dict(full_state(model), strict=False)
        self.version = version
        return {"sync_s": 0.0}

    async def serves(self, version: int) -> bool:
        return version == self.version

    @torch.no_grad()
    async def generate(
        self, prompt_ids: Sequence[int], *, n: int, seed: int | None, max_tokens: int
    ) -> Sequence[Turn]:
        draw = torch.Generator().manual_seed(seed or 0)
        ids_NT = torch.tensor([list(prompt_ids)] * n)
        columns: list[torch.Tensor] = []
        for _ in range(max_tokens):
            logits_NV = self.model(input_ids=ids_NT).logits[:, -1].float()
            logp_NV = (logits_NV / (self.temperature or 1.0)).log_softmax(-1)
            if self.temperature:
                next_N1 = torch.multinomial(logp_NV.exp(), 1, generator=draw)
            else:
                next_N1 = logp_NV.argmax(-1, keepdim=True)
            columns.append(logp_NV.gather(-1, next_N1))
            ids_NT = torch.cat([ids_NT, next_N1], dim=1)
        rows = ids_NT[:, len(prompt_ids) :].tolist()
        logprobs = torch.cat(columns, dim=1).tolist()
        return [self._turn(prompt_ids, *pair) for pair in zip(rows, logprobs, strict=True)]

    def _turn(self, prompt: Sequence[int], ids: list[int], logprobs: list[float]) -> Turn:
        ends = [i + 1 for i, token in enumerate(ids) if token in self.renderer.stop_ids]
        length = ends[0] if ends else len(ids)
        return Turn(
            prompt_ids=tuple(prompt),
            completion_ids=tuple(ids[:length]),
            logprobs=tuple(logprobs[:length]),
            version=self.version,
            stop_reason="stop" if ends else "length",
            text=self.renderer.text(ids[:length]),
        )
