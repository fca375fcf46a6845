"""The paper's connector: BLIP-2's Q-Former (arXiv 2301.12597, section 3.1) with random weights, then an MLP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from n2kit.contract import Connector, LLMCard, VisionCard
from n2kit_connectors.plan import QFormerConfig, qformer_card
from n2kit_connectors.projector import mlp


class QFormer(Connector):
    """A Q-Former: Q learned queries attend to each other and, in every second layer, to the vision tokens."""

    config_class = QFormerConfig

    def __init__(self, config: QFormerConfig, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.tokens = qformer_card(config, vision, llm).tokens
        # Zero queries would meet a LayerNorm of epsilon 1e-12 first: gradients of 1e13.
        self.queries = nn.Parameter(torch.randn(1, config.tokens, config.width) * 0.02)
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.inner or 4 * config.width,
                encoder_hidden_size=vision.token_width,
                cross_attention_frequency=config.cross_every,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        )
        self.project = mlp([config.width, llm.input_width, llm.input_width])

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        queries = self.queries.expand(len(tokens), -1, -1)
        seen = self.qformer(query_embeds=queries, encoder_hidden_states=tokens, encoder_attention_mask=mask)
        out: Tensor = self.project(seen.last_hidden_state)
        return out

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.qformer.encoder.layer)
