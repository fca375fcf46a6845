"""Items → one batch of tensors: prompts laid out, pictures decoded, each item with the prompt of what it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from n2kit.data.images import UnreadableImage, open_image
from n2kit.prompts import PAD, Prompter
from n2kit.prompts import Sequence as TokenRow

if TYPE_CHECKING:
    from n2kit.data.features import FeatureCache
    from n2kit.data.items import Item
    from n2kit.parts import VisionEncoder, VisionOut

OnBadImage = Literal["error", "skip", "text-only"]


@dataclass
class Batch:
    """`B` items of which `I` have a picture.

    ids [B, T] (negative: our own words), final [B] and visual [B] compress positions (visual -1: none), in_prompt [I] bool
    (visual tokens stand in the row), rows [I] the item of each picture, and either pixels [I, 3, H, W] or seen, the frozen
    encoder's output for them.
    """

    ids: Tensor
    final: Tensor
    visual: Tensor
    rows: Tensor
    in_prompt: Tensor
    pixels: Tensor | None = None
    seen: VisionOut | None = None

    def to(self, device: torch.device | str) -> Batch:
        def move(value: Any) -> Any:
            return None if value is None else value.to(device)

        seen = None if self.seen is None else type(self.seen)(*map(move, self.seen))
        tensors = {k: getattr(self, k).to(device) for k in ("ids", "final", "visual", "rows", "in_prompt")}
        return Batch(**tensors, pixels=move(self.pixels), seen=seen)


def collate(sequences: Sequence[TokenRow], shown: Sequence[int]) -> Batch:
    """Pad rows on the right into a batch; `shown` are the rows whose item has a picture."""
    width = max(len(s.ids) for s in sequences)
    return Batch(
        ids=torch.tensor([s.ids + [PAD] * (width - len(s.ids)) for s in sequences]),
        final=torch.tensor([s.final for s in sequences]),
        visual=torch.tensor([s.visual for s in sequences]),
        rows=torch.tensor(list(shown), dtype=torch.long),
        in_prompt=torch.tensor([sequences[n].has_image for n in shown], dtype=torch.bool),
    )


@dataclass
class Reader:
    """Reads items for one model; counts what it had to do without.

    Raises (when called):
        UnreadableImage: under policy `error`.
    """

    prompter: Prompter
    vision: VisionEncoder | None
    images: Path | None
    on_bad_image: OnBadImage = "error"
    cache: FeatureCache | None = None
    bad: dict[str, str] = field(default_factory=dict)  # item id → reason

    def usable(self, items: Sequence[Item]) -> list[Item]:
        """Items that have something this variant reads; under policy `skip`, pictures that cannot be read drop their item."""
        kept = []
        for item in items:
            if item.id in self.bad and self.on_bad_image == "skip":
                continue
            if not self.readable(item):
                self.bad.setdefault(item.id, "neither a picture nor a text that this variant reads")
                continue
            kept.append(item)
        return kept

    def readable(self, item: Item) -> bool:
        variant = self.prompter.variant
        has_image = variant.image and bool(item.image) and item.id not in self.bad
        return has_image or (variant.text and item.has_text)

    def __call__(self, items: Sequence[Item]) -> tuple[Batch | None, list[Item]]:
        """The batch and the items that are in it (fewer where some had to be skipped); None if nothing is left."""
        pixels: dict[str, Tensor] = {}
        if self.vision is not None and self.prompter.variant.image:
            for item in items:
                self._look(item, pixels)
        kept = self.usable(items)
        if not kept:
            return None, []
        shown = [i for i in kept if i.id in pixels or (self.cache is not None and i.id in self.cache)]
        shown_ids = {i.id for i in shown}
        sequences = [self.prompter(i, image=i.id in shown_ids) for i in kept]
        batch = collate(sequences, [n for n, i in enumerate(kept) if i.id in shown_ids])
        if shown and self.cache is not None:
            batch.seen = self.cache.get([i.id for i in shown], pixels)
        elif shown:
            batch.pixels = torch.stack([pixels[i.id] for i in shown])
        return batch, kept

    def _look(self, item: Item, pixels: dict[str, Tensor]) -> None:
        if not item.image or item.id in self.bad or (self.cache is not None and item.id in self.cache):
            return
        assert self.vision is not None
        try:
            if self.images is None:
                raise UnreadableImage(f"item {item.id!r} has an image, but no images folder is given", "--images DIR")
            pixels[item.id] = self.vision.transform(open_image(item, self.images))
        except UnreadableImage as error:
            if self.on_bad_image == "error":
                raise
            self.bad[item.id] = error.message
