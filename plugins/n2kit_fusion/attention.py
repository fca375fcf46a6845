"""Late fusion without a pooled vector: the compressed word attends to all vision tokens."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from n2kit.contract import Fusion, LLMCard, VisionCard
from n2kit_fusion.plan import CrossAttentionConfig


class CrossAttention(Fusion):
    """Cross-attention n + W_o attention(W_q LN(n); W_k LN(x), W_v LN(x)): the query is the word n, keys and values the vision tokens x."""

    config_class = CrossAttentionConfig
    extra_inputs = frozenset({"tokens", "mask"})

    def __init__(self, config: CrossAttentionConfig, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        attended = config.heads * config.head_width
        self.heads = config.heads
        self.norm_word, self.norm_image = nn.LayerNorm(llm.output_width), nn.LayerNorm(vision.token_width)
        self.query = nn.Linear(llm.output_width, attended, bias=False)
        self.key_value = nn.Linear(vision.token_width, 2 * attended, bias=False)
        self.out = nn.Linear(attended, llm.output_width, bias=False)

    def forward(  # type: ignore[override]
        self, hidden: Tensor, pooled: Tensor | None, *, tokens: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Fuse hidden [B, Dh] with tokens [B, N, Dv], mask [B, N] or None → [B, Dh]; `pooled` is not read."""
        key, value = self.key_value(self.norm_image(tokens)).unflatten(-1, (2, self.heads, -1)).unbind(2)
        query = self.query(self.norm_word(hidden)).unflatten(-1, (self.heads, 1, -1))
        hide = None if mask is None else mask[:, None, None]
        seen = F.scaled_dot_product_attention(query, key.transpose(1, 2), value.transpose(1, 2), attn_mask=hide)
        out: Tensor = hidden + self.out(seen.flatten(1))
        return out
