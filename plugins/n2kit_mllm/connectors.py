"""The connectors of multimodal LLMs, as they were trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from transformers.activations import ACT2FN

from n2kit.contract import Connector, LLMCard, VisionCard
from n2kit_mllm.config import NormConfig, PoolConfig, ProjectorConfig, QueryConfig, ShuffleConfig, WrapConfig


class Wrap(Connector):
    """A connector that puts Qwen's tokens (its tower merges and projects) between <|vision_start|> and <|vision_end|>.

    `rows` [2, De] are copies of those two rows of the language model's table, so that it reads what it was trained on.
    """

    config_class: ClassVar[type[BaseModel]] = WrapConfig

    def __init__(self, config: Any, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.tokens = vision.tokens + 2
        self.rows = nn.Parameter(torch.zeros(2, llm.input_width))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        first, last = (row.expand(len(tokens), 1, -1).to(tokens.dtype) for row in self.rows)
        return torch.cat([first, tokens, last], 1)


class LlavaProjector(Connector):
    """A projector of two linear layers on every patch (LLaVA-1.5, arXiv 2310.03744, section 3.3)."""

    config_class = ProjectorConfig

    def __init__(self, config: ProjectorConfig, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.tokens = vision.tokens - config.drop
        self.linear_1 = nn.Linear(vision.token_width, llm.input_width, bias=config.bias)
        self.act = ACT2FN[config.activation]
        self.linear_2 = nn.Linear(llm.input_width, llm.input_width, bias=config.bias)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.linear_2(self.act(self.linear_1(tokens[:, self.config.drop :])))
        return out


class ShuffleProjector(Connector):
    """A pixel shuffle, which makes one wide token of scale × scale patches, and a projector on it (InternVL 1.5, SmolVLM).

    Its tokens are ((N − drop) / scale²) in the order of the patches.
    """

    config_class = ShuffleConfig

    def __init__(self, config: ShuffleConfig, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        wide = vision.token_width * config.scale**2
        self.tokens = (vision.tokens - config.drop) // config.scale**2
        if config.activation is None:
            layers: list[nn.Module] = [nn.Linear(wide, llm.input_width, bias=False)]
        else:
            layers = [
                nn.LayerNorm(wide), nn.Linear(wide, llm.input_width), ACT2FN[config.activation],
                nn.Linear(llm.input_width, llm.input_width),
            ]  # fmt: skip
        self.layers = nn.Sequential(*layers)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.layers(pixel_shuffle(tokens[:, self.config.drop :], self.config.scale))
        return out


def pixel_shuffle(tokens: Tensor, scale: int) -> Tensor:
    """Fold squares of scale × scale patches into their features: [I, S², D] → [I, (S / scale)², D · scale²]."""
    side = round(tokens.shape[1] ** 0.5) // scale
    cells: Tensor = tokens.unflatten(1, (side, scale, side, scale))
    folded: Tensor = cells.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
    return folded


class GemmaProjector(Wrap):
    """A mean over squares of patches, a norm and a linear map (Gemma 3, arXiv 2503.19786), between two rows as `Wrap` puts them."""

    config_class = PoolConfig

    def __init__(self, config: PoolConfig, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.tokens = config.tokens + 2
        self.norm_weight = nn.Parameter(torch.zeros(vision.token_width))
        self.projection = nn.Parameter(torch.zeros(vision.token_width, llm.input_width))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        folds = round((tokens.shape[1] / self.config.tokens) ** 0.5)
        side = round(self.config.tokens**0.5)
        means = tokens.unflatten(1, (side, folds, side, folds)).mean((2, 4)).flatten(1, 2)
        normed = functional.rms_norm(means.float(), means.shape[-1:], 1 + self.norm_weight.float(), self.config.eps)
        return super().forward(normed.to(tokens.dtype) @ self.projection)


class Gemma4Projector(Wrap):
    """A norm and a linear map (Gemma 4), between two rows as `Wrap` puts them.

    Behind a visual token's embedding stand those of the layers, which are the padding token's: `layered` [De − D].
    """

    config_class = NormConfig

    def __init__(self, config: NormConfig, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.projection = nn.Linear(vision.token_width, llm.input_width - config.layered, bias=False)
        self.layered = nn.Parameter(torch.zeros(config.layered))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        normed = functional.rms_norm(tokens.float(), tokens.shape[-1:], eps=self.config.eps).to(tokens.dtype)
        behind = self.layered.to(tokens.dtype).expand(*tokens.shape[:2], -1)
        return super().forward(torch.cat([self.projection(normed), behind], -1))


class Blip2QFormer(Connector):
    """A trained Q-Former: queries attend to the image, then one linear layer (BLIP-2, arXiv 2301.12597, section 3.3)."""

    config_class = QueryConfig

    def __init__(self, config: QueryConfig, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        shape = Blip2QFormerConfig.from_dict(dict(config.qformer))
        self.tokens = config.queries
        self.query_tokens = nn.Parameter(torch.zeros(1, config.queries, shape.hidden_size))
        self.qformer = Blip2QFormerModel(shape)
        self.language_projection = nn.Linear(shape.hidden_size, llm.input_width)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        queries = self.query_tokens.expand(len(tokens), -1, -1)
        seen = self.qformer(query_embeds=queries, encoder_hidden_states=tokens, encoder_attention_mask=mask)
        out: Tensor = self.language_projection(seen.last_hidden_state)
        return out

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.qformer.encoder.layer)
