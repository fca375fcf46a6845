"""One batch of tensors: the token rows of several items, padded, with their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from n2kit.contract.interfaces import VisionOut
from n2kit.modeling.prompts import PAD, TokenizedPrompt


@dataclass
class Batch:
    """`B` items, of which `I` have an image. Positions count from the start of a row.

    ids [B, T]: token ids, padded on the right; special tokens of n2kit have negative ids.
    pool_pos [B]: the compress position, whose hidden state becomes the item's vector.
    visual_pool_pos [B]: the compress position of the image under mICL; -1 where a row has none.
    image_owner [I]: the row of the item that each image belongs to.
    in_prompt [I] bool: the image's visual tokens stand in the row.
    pixels [I, 3, H, W], or vision_out, the frozen vision encoder's output for the images, or vision_rows, I such outputs as the
        feature cache holds them, which `with_vision_out` stacks to vision_out.
    end_pos [B]: the last position of each row, where rows go on behind pool_pos: with a task and its answer, or with the image.
    answers [B]: how many tokens the answer at the end of each row has.
    has_text [B] bool: the item has a text that stands in the row; None: all have.
    cached_states: row → its hidden state at pool_pos [Dh], which need not be computed again. With cached_layer > 0: row → the
        output of the LLM's first `cached_layer` blocks for all its tokens, [T, D].
    """

    ids: Tensor
    pool_pos: Tensor
    visual_pool_pos: Tensor
    image_owner: Tensor
    in_prompt: Tensor
    pixels: Tensor | None = None
    vision_out: VisionOut | None = None
    vision_rows: list[VisionOut] | None = None
    end_pos: Tensor | None = None
    answers: Tensor | None = None
    has_text: Tensor | None = None
    cached_states: dict[int, Tensor] = field(default_factory=dict)
    cached_layer: int = 0

    @property
    def last_pos(self) -> Tensor:
        """The last position of each row that is no padding, [B]."""
        return self.pool_pos if self.end_pos is None else self.end_pos

    def answer_tokens(self) -> tuple[Tensor, Tensor]:
        """Find the tokens of all answers: their rows [n] and positions [n]."""
        assert self.answers is not None
        positions, last = torch.arange(self.ids.shape[1], device=self.ids.device), self.last_pos[:, None]
        rows, at = ((positions <= last) & (positions > last - self.answers[:, None])).nonzero(as_tuple=True)
        return rows, at

    def to(self, device: torch.device | str) -> Batch:
        """Copy the tensors to a device; `vision_rows` and `cached_states` stay in the caches' own memory."""
        names = (
            "ids", "pool_pos", "visual_pool_pos", "image_owner", "in_prompt", "pixels", "end_pos", "answers", "has_text",
        )  # fmt: skip
        tensors = {k: t.to(device) for k in names if (t := getattr(self, k)) is not None}
        vision_out = None if self.vision_out is None else self.vision_out.map(lambda t: t.to(device))
        return replace(self, **tensors, vision_out=vision_out)

    def with_vision_out(self) -> Batch:
        """Stack `vision_rows`, where there are some, to `vision_out` on the batch's device."""
        if not self.vision_rows:
            return self
        vision_out = stack_vision(self.vision_rows).map(lambda t: t.to(self.ids.device))
        return replace(self, vision_out=vision_out, vision_rows=None)

    def take(self, rows: Tensor) -> Batch:
        """Select the items at `rows` [n], ascending, with their images, and no wider than the longest of them."""
        new_row = self.image_owner.new_full((len(self.ids),), -1)
        new_row[rows] = torch.arange(len(rows), device=rows.device)
        images = new_row[self.image_owner] >= 0
        any_image = bool(images.any())
        numbers = images.nonzero().flatten().tolist()
        cached = self.cached_states
        return Batch(
            ids=self.ids[rows, : int(self.last_pos[rows].max()) + 1],
            pool_pos=self.pool_pos[rows],
            visual_pool_pos=self.visual_pool_pos[rows],
            image_owner=new_row[self.image_owner[images]],
            in_prompt=self.in_prompt[images],
            pixels=self.pixels[images] if self.pixels is not None and any_image else None,
            vision_out=self.vision_out.map(lambda t: t[images]) if self.vision_out is not None and any_image else None,
            vision_rows=None if self.vision_rows is None else [self.vision_rows[n] for n in numbers],
            end_pos=None if self.end_pos is None else self.end_pos[rows],
            answers=None if self.answers is None else self.answers[rows],
            has_text=None if self.has_text is None else self.has_text[rows],
            cached_states={n: cached[row] for n, row in enumerate(rows.tolist()) if row in cached},
            cached_layer=self.cached_layer,
        )


def stack_vision(outs: Sequence[VisionOut]) -> VisionOut:
    """Stack the outputs of single images, tokens [N, Dv] each, to one in float32, tokens [I, N, Dv]."""
    out = VisionOut.merge(outs, torch.stack)
    return out._replace(tokens=out.tokens.float(), pooled=None if out.pooled is None else out.pooled.float())


def collate(prompts: Sequence[TokenizedPrompt], with_image: Sequence[int]) -> Batch:
    """Pad prompts on the right into a batch; `with_image` are the rows whose item has an image."""
    width = max(len(p.ids) for p in prompts)
    goes_on = any(len(p.ids) - 1 > p.pool_pos for p in prompts)
    return Batch(
        ids=torch.tensor([p.ids + [PAD] * (width - len(p.ids)) for p in prompts]),
        pool_pos=torch.tensor([p.pool_pos for p in prompts]),
        visual_pool_pos=torch.tensor([p.visual_pool_pos for p in prompts]),
        image_owner=torch.tensor(list(with_image), dtype=torch.long),
        in_prompt=torch.tensor([prompts[n].has_image for n in with_image], dtype=torch.bool),
        end_pos=torch.tensor([len(p.ids) - 1 for p in prompts]) if goes_on else None,
        answers=torch.tensor([p.answer for p in prompts]) if any(p.answer for p in prompts) else None,
        has_text=torch.tensor([p.has_text for p in prompts]),
    )
