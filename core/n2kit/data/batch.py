"""Items → one batch of tensors: prompts laid out, pictures decoded, each item with the prompt of what it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from n2kit.data.images import UnreadableImage, open_image
from n2kit.errors import BadInput
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
        def move(value: Tensor) -> Tensor:
            return value.to(device)

        seen = None if self.seen is None else self.seen.map(move)
        pixels = None if self.pixels is None else move(self.pixels)
        tensors = {k: getattr(self, k).to(device) for k in ("ids", "final", "visual", "rows", "in_prompt")}
        return Batch(**tensors, pixels=pixels, seen=seen)


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
    """Reads items for one model; `bad` counts what it had to do without: item id → reason.

    Raises (when called):
        UnreadableImage: under policy `error`.
        BadInput: under policy `error`, an item with nothing that the variant reads.
    """

    prompter: Prompter
    vision: VisionEncoder | None
    images: Path | None
    on_bad_image: OnBadImage = "error"
    cache: FeatureCache | None = None
    bad: dict[str, str] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)  # image paths

    def __call__(self, items: Sequence[Item]) -> tuple[Batch | None, list[int]]:
        """The batch, and the positions of the items that are in it; None if nothing is left."""
        pixels: dict[str, Tensor] = {}
        for item in items if self.vision is not None and self.prompter.variant.image else []:
            self._look(item, pixels)
        kept = [n for n, item in enumerate(items) if self._usable(item)]
        if not kept:
            return None, []
        seen = [self._shows(items[n]) for n in kept]
        sequences = [self.prompter(items[n], image=shown) for n, shown in zip(kept, seen, strict=True)]
        rows = [row for row, shown in enumerate(seen) if shown]
        batch = collate(sequences, rows)
        paths = [items[kept[row]].image for row in rows]
        if paths and self.cache is not None:
            batch.seen = self.cache.get(paths, pixels)
        elif paths:
            batch.pixels = torch.stack([pixels[path] for path in paths])
        return batch, kept

    def _shows(self, item: Item) -> bool:
        """Whether the variant gets to see a picture of the item."""
        return self.prompter.variant.image and bool(item.image) and item.image not in self.unreadable

    def _usable(self, item: Item) -> bool:
        if item.image in self.unreadable and self.on_bad_image == "skip":
            return False
        if self._shows(item) or (self.prompter.variant.text and item.has_text):
            return True
        reason = "neither a picture nor a text that this variant reads"
        if self.on_bad_image == "error":
            raise BadInput(f"item {item.id!r}: {reason}", "give it one, or --on-bad-image skip leaves such items out")
        self.bad.setdefault(item.id, f"item {item.id!r}: {reason}")
        return False

    def _look(self, item: Item, pixels: dict[str, Tensor]) -> None:
        """Decode an item's picture, unless its features are known already."""
        if not item.image or item.image in pixels or (self.cache is not None and item.image in self.cache):
            return
        assert self.vision is not None
        if item.image not in self.unreadable:
            try:
                if self.images is None:
                    raise UnreadableImage(
                        f"item {item.id!r} has an image, but no images folder is given", "--images DIR"
                    )
                pixels[item.image] = self.vision.transform(open_image(item, self.images))
                return
            except UnreadableImage as error:
                if self.on_bad_image == "error":
                    raise
                self.unreadable.add(item.image)
                self.bad[item.id] = error.message
        self.bad.setdefault(item.id, f"item {item.id!r}: image {item.image!r} cannot be read")
