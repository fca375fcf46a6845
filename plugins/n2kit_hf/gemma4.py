"""Gemma 4's language model, which adds a second embedding of each token to every layer (per-layer embeddings)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from n2kit.contract import LLM
from n2kit_hf.llm import TransformersLLM
from n2kit_hf.pooling import SentencePooling


class Gemma4LLM(TransformersLLM):
    """A language model whose embeddings carry those of its layers: x is [B, T, D + layers · P], P numbers a layer behind the first D.

    transformers would look the second embeddings up by token id, which a visual token does not have. Models without them (P = 0)
    read embeddings as any other one does.
    """

    carries_layers = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        whole: PreTrainedModel | None = None,
        pooling: SentencePooling | None = None,
    ) -> None:
        super().__init__(model, tokenizer, whole, pooling)
        self.card = replace(self.card, input_width=self.card.input_width + self._layered())

    def _layered(self) -> int:
        config: Any = self.model.config.get_text_config()
        return int(config.num_hidden_layers * (config.hidden_size_per_layer_input or 0))

    def embed(self, ids: Tensor) -> Tensor:
        rows = super().embed(ids)
        if not self._layered():
            return rows
        layered: Any = self.model.embed_tokens_per_layer
        return torch.cat([rows, layered(ids)], -1)

    def model_inputs(self, x: Tensor) -> dict[str, Tensor]:
        """Split x [B, T, De] into what the model takes: the embeddings, and those of each layer [B, T, layers, P]."""
        if not self._layered():
            return {"inputs_embeds": x}
        width = x.shape[-1] - self._layered()
        layers = self.model.config.get_text_config().num_hidden_layers
        return {"inputs_embeds": x[..., :width], "per_layer_inputs": x[..., width:].unflatten(-1, (layers, -1))}

    @property
    def supports_prefix_cache(self) -> bool:
        return False

    def generate(
        self, x: Tensor, max_new_tokens: int, eos_token_id: int | None = None, num_beams: int = 1
    ) -> list[int]:
        return LLM.generate(self, x, max_new_tokens, eos_token_id, num_beams)  # transformers' own would need token ids
