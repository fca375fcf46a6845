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
from n2kit.modeling.batch import Batch, collate
from n2kit.modeling.prompts import Prompter, Task

if TYPE_CHECKING:
    from n2kit.contract.interfaces import VisionEncoder
    from n2kit.data.items import Item
    from n2kit.inputs.feature_cache import FeatureCache
    from n2kit.inputs.state_cache import StateCache

OnBadImage = Literal["error", "skip", "text-only"]


@dataclass
class Reader:
    """Reads items for one model; `bad` counts what it had to do without: item id → reason.

    Args:
        apart: leave known features where the cache holds them; the batch is to be `joined`, or a part of it.
        answered: rows of items that are asked for something end with the answer; false: with the question.

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
    apart: bool = False
    states: StateCache | None = None
    answered: bool = True

    def __call__(
        self, items: Sequence[Item], tasks: Sequence[Task | None] | None = None
    ) -> tuple[Batch | None, list[int]]:
        """The batch, and the positions of the items that are in it; None if nothing is left.

        Args:
            tasks: what each item is asked for behind its compressed word.
        """
        pixels: dict[str, Tensor] = {}
        for item in items if self.vision is not None and self.prompter.variant.image else []:
            self._look(item, pixels)
        kept = [n for n, item in enumerate(items) if self._usable(item)]
        if not kept:
            return None, []
        seen = [self._shows(items[n]) for n in kept]
        asked = [None] * len(items) if tasks is None else tasks
        sequences = [
            self.prompter(items[n], image=shown, task=asked[n], answered=self.answered)
            for n, shown in zip(kept, seen, strict=True)
        ]
        rows = [row for row, shown in enumerate(seen) if shown]
        batch = collate(sequences, rows)
        if self.states is not None:
            batch.known, batch.depth = self.states.rows(sequences), self.states.depth
        paths = [items[kept[row]].image for row in rows]
        if paths and self.cache is not None:
            batch.apart = self.cache.rows(paths, pixels)
            batch = batch if self.apart else batch.joined()
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
                pixels[item.image] = self.vision.transform(open_image(item, self.images))
                return
            except UnreadableImage as error:
                if self.on_bad_image == "error":
                    raise
                self.unreadable.add(item.image)
                self.bad[item.id] = error.message
        self.bad.setdefault(item.id, f"item {item.id!r}: image {item.image!r} cannot be read")
