"""Language models that know of pictures: Qwen-VL's positions and deeper features, Gemma's attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from n2kit_hf.gemma4 import Gemma4LLM
from n2kit_hf.llm import TransformersLLM
from n2kit_hf.pooling import SentencePooling

DEEP_LAYERS = "n2kit_deepstack_layers"  # in the configuration of the language model, which does not know of the tower's


class QwenText(TransformersLLM):
    """Qwen2-VL's language model: visual tokens get the rows and columns of their patches as positions (M-RoPE)."""

    extra_inputs = frozenset({"image"})

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Any = None, image: Tensor | None = None) -> Tensor:
        """Compute the hidden states [B, T, Dh] of x [B, T, De], image [B, T] bool; causal, so that it needs no mask."""
        positions = None if image is None else multimodal_positions(image)
        out: Tensor = self.model(inputs_embeds=x, position_ids=positions, use_cache=False).last_hidden_state
        return out.to(x.dtype)


class Qwen3Text(QwenText):
    """Qwen3-VL's language model: features of deeper vision layers are added to its first layers' outputs (DeepStack, 2406.04334).

    They come with the embeddings: x is [B, T, (1 + layers) · De], and all but the first De numbers are zero where text stands.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        whole: PreTrainedModel | None = None,
        pooling: SentencePooling | None = None,
    ) -> None:
        super().__init__(model, tokenizer, whole, pooling)
        self.card = replace(self.card, input_width=self.card.input_width * (1 + self._deep_layers()))

    def _deep_layers(self) -> int:
        return int(getattr(self.model.config, DEEP_LAYERS, 0))

    def embed(self, ids: Tensor) -> Tensor:
        rows = super().embed(ids)
        return functional.pad(rows, (0, rows.shape[-1] * self._deep_layers()))

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Any = None, image: Tensor | None = None) -> Tensor:
        """Compute the hidden states [B, T, Dh] of x [B, T, De], image [B, T] bool; causal, so that it needs no mask."""
        first, *deep = x.chunk(1 + self._deep_layers(), -1)
        seen: dict[str, Any] = {}
        if image is not None:
            seen = {"position_ids": multimodal_positions(image), "visual_pos_masks": image}
            seen["deepstack_visual_embeds"] = [layer[image] for layer in deep]
        out: Tensor = self.model(inputs_embeds=first, use_cache=False, **seen).last_hidden_state
        return out.to(x.dtype)


class GemmaText(TransformersLLM):
    """Gemma 3's language model: the visual tokens of a picture see each other in both directions; all else is causal."""

    extra_inputs = frozenset({"image"})

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Any = None, image: Tensor | None = None) -> Tensor:
        """Compute the hidden states [B, T, Dh] of x [B, T, De], image [B, T] bool; right padding needs no mask."""
        masks = None if image is None else picture_masks(image, self.model.config.sliding_window, x.dtype)
        out: Tensor = self.model(inputs_embeds=x, attention_mask=masks, use_cache=False).last_hidden_state
        return out.to(x.dtype)


class Gemma4Text(Gemma4LLM):
    """Gemma 4's language model beside its tower: in the larger ones a picture's tokens see each other, in layers of a window alone."""

    extra_inputs = frozenset({"image"})

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Any = None, image: Tensor | None = None) -> Tensor:
        """Compute the hidden states [B, T, Dh] of x [B, T, De], image [B, T] bool; right padding needs no mask."""
        config, masks = self.model.config, None
        if image is not None and config.use_bidirectional_attention == "vision":
            masks = picture_masks(image, config.sliding_window, x.dtype, everywhere=False)
        out: Tensor = self.model(**self.model_inputs(x), attention_mask=masks, use_cache=False).last_hidden_state
        return out.to(x.dtype)


def picture_masks(image: Tensor, window: int, dtype: torch.dtype, *, everywhere: bool = True) -> dict[str, Tensor]:
    """Build what is added to attention scores, for layers that see all and for those of a window: [B, 1, T, T] each.

    Args:
        image: [B, T] bool, the visual tokens of at most one picture a row. The first and the last of them are text.
        everywhere: a picture's tokens see each other in layers that see all, too.
    """
    before = functional.pad(image, (1, 0))[:, :-1]
    behind = functional.pad(image, (0, 1))[:, 1:]
    picture = image & before & behind
    index = torch.arange(image.shape[1], device=image.device)
    back = index[:, None] - index  # how far a key lies behind its query
    behind_or_beside = (back >= 0) | (picture[:, :, None] & picture[:, None, :])
    seen = behind_or_beside if everywhere else (back >= 0).expand_as(behind_or_beside)
    lowest = torch.finfo(dtype).min
    return {
        name: torch.zeros(seen.shape, dtype=dtype, device=image.device).masked_fill(~allowed, lowest)[:, None]
        for name, allowed in (("full_attention", seen), ("sliding_attention", behind_or_beside & (back < window)))
    }


def multimodal_positions(image: Tensor) -> Tensor:
    """Compute each token's position in time, height and width: [3, B, T] (Qwen2-VL, arXiv 2409.12191, section 2.1).

    Text counts up in all three. A picture takes one moment and a square of rows and columns, and the text behind it goes on
    from the largest of its positions. The first and the last visual token of a row are text: they wrap the square.

    Args:
        image: [B, T] bool, the visual tokens of at most one picture a row.
    """
    index = torch.arange(image.shape[1], device=image.device).expand_as(image)
    count = image.sum(1, keepdim=True)
    side = (count - 2).clamp_min(1).sqrt().round().long()  # a whole square, since the tower's input is one
    patch = image.cumsum(1) - 2  # number of a patch within its picture; -1 for what wraps it on the left
    inside = image & (patch >= 0) & (patch < side**2)
    behind = (count > 0) & (patch >= side**2)
    text = index - behind * (side**2 - side)
    start = index - patch
    grid = torch.stack([start, start + patch // side, start + patch % side])
    return torch.where(inside, grid, text)
