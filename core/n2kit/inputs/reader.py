"""Items to one batch of tensors: prompts laid out, images decoded, each item with the prompt for the modalities that it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from n2kit.data.images import UnreadableImage, open_image
from n2kit.errors import BadInput
from n2kit.modeling.batch import Batch, collate
from n2kit.modeling.prompts import PromptBuilder, Task, TokenizedPrompt
from n2kit.plugins.blame import accuse

if TYPE_CHECKING:
    from n2kit.contract.interfaces import VisionEncoder
    from n2kit.data.items import Item
    from n2kit.inputs.feature_cache import FeatureCache
    from n2kit.inputs.images_ahead import LoadImage
    from n2kit.inputs.state_cache import StateCache

OnBadImage = Literal["error", "skip", "text-only"]


def iter_pixels(
    items: Iterable[Item],
    vision: VisionEncoder,
    images: Path | None,
    cache: FeatureCache | None = None,
    policy: OnBadImage = "error",
    unreadable: dict[str, str] | None = None,
    load: LoadImage | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Decode the images of items one by one: pairs of image path and pixels [3, H, W], each path once.

    Items without an image and images whose features are in `cache` are passed over.

    Args:
        images: the folder that paths are relative to.
        policy: `error` raises; otherwise an unreadable image is passed over.
        unreadable: takes path → reason of each image that cannot be read; those that it holds already are not tried again.
        load: gives an item's pixels, such as were decoded ahead; by default they are decoded now.

    Raises:
        UnreadableImage: under policy `error`.
    """
    unreadable = {} if unreadable is None else unreadable
    decoded: set[str] = set()
    for item in items:
        path = item.image
        if not path or path in decoded or path in unreadable or (cache is not None and path in cache):
            continue
        try:
            pixels = vision.transform(open_image(item, images)) if load is None else load(item)
        except UnreadableImage as error:
            if policy == "error":
                raise
            unreadable[path] = error.message
            continue
        decoded.add(path)
        yield path, checked_pixels(vision, pixels)


def checked_pixels(vision: VisionEncoder, pixels: object) -> Tensor:
    """Return pixels [3, H, W] as an encoder's transform gave them.

    Raises:
        Unavailable: the transform of a third party gives something else.
    """
    if not isinstance(pixels, Tensor) or not pixels.is_floating_point() or pixels.ndim != 3:
        found = f"{pixels.dtype} of {list(pixels.shape)}" if isinstance(pixels, Tensor) else type(pixels).__name__
        wrong = f"its transform gives {found}, not float pixels [3, H, W]"
        raise accuse(vision, wrong) or AssertionError(wrong)
    return pixels


@dataclass
class Reader:
    """A reader of items for one model: what `data` holds becomes the batches of `modeling`.

    Args:
        cache, states: outputs of the frozen encoder, and hidden states of the frozen LLM, that need not be computed again.
        bad: item id → the reason why the item was left out, or read without its image; filled while reading.
        unreadable: image path → the reason; filled while reading.
        lazy_features: leave cached features in the cache's memory, as `Batch.vision_rows`.
        answered: rows of items that have something to generate (a `Task`) end with the answer; false: with the question.
        load: as for `iter_pixels`.
        laid_out: prompts that are built already, for items all of whose images can be read: identity of the item → prompt.

    Raises (when called):
        UnreadableImage: under policy `error`.
        BadInput: under policy `error`, an item with nothing that the variant reads.
    """

    prompt_builder: PromptBuilder
    vision: VisionEncoder | None
    images: Path | None
    on_bad_image: OnBadImage = "error"
    cache: FeatureCache | None = None
    bad: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)  # image path → reason
    lazy_features: bool = False
    states: StateCache | None = None
    answered: bool = True
    load: LoadImage | None = None
    laid_out: Mapping[int, TokenizedPrompt] = field(default_factory=dict)

    def __call__(
        self, items: Sequence[Item], tasks: Sequence[Task | None] | None = None
    ) -> tuple[Batch | None, list[int]]:
        """Read items into a batch; also return the positions of those that are in it. The batch is None if nothing is left.

        Args:
            tasks: the task that follows each item's compressed word, or None.
        """
        pixels = self._decode(items)
        kept = [n for n, item in enumerate(items) if self._usable(item)]
        if not kept:
            return None, []
        with_image = [self._has_image(items[n]) for n in kept]
        prompts = [
            self._prompt(items[n], image, tasks[n] if tasks else None)
            for n, image in zip(kept, with_image, strict=True)
        ]
        rows = [row for row, image in enumerate(with_image) if image]
        batch = collate(prompts, rows)
        if self.states is not None:
            batch.cached_states, batch.cached_layer = self.states.rows(prompts), self.states.num_layers
        paths = [items[kept[row]].image for row in rows]
        if paths and self.cache is not None:
            batch.vision_rows = self.cache.rows(paths, pixels)
            batch = batch if self.lazy_features else batch.with_vision_out()
        elif paths:
            batch.pixels = torch.stack([pixels[path] for path in paths])
        return batch, kept

    def _prompt(self, item: Item, image: bool, task: Task | None) -> TokenizedPrompt:
        known = self.laid_out.get(id(item)) if task is None and image == self._wants_image(item) else None
        return known or self.prompt_builder(item, image=image, task=task, answered=self.answered)

    def _wants_image(self, item: Item) -> bool:
        return self.prompt_builder.variant.image and bool(item.image)

    def _has_image(self, item: Item) -> bool:
        """Return whether the variant reads an image of the item."""
        return self._wants_image(item) and item.image not in self.unreadable

    def _usable(self, item: Item) -> bool:
        if item.image in self.unreadable and self.on_bad_image == "skip":
            return False
        if self._has_image(item) or (self.prompt_builder.variant.text and item.has_text):
            return True
        reason = "neither an image nor a text that this variant reads"
        if self.on_bad_image == "error":
            raise BadInput(f"item {item.id!r}: {reason}", "give it one, or --on-bad-image skip leaves such items out")
        self.bad.setdefault(item.id, f"item {item.id!r}: {reason}")
        return False

    def _decode(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Decode the items' images whose features are not cached: path → pixels [3, H, W]. Count those that cannot be read."""
        if self.vision is None or not self.prompt_builder.variant.image:
            return {}
        known = set(self.unreadable)
        found = iter_pixels(items, self.vision, self.images, self.cache, self.on_bad_image, self.unreadable, self.load)
        pixels = dict(found)
        for item in items:
            if (reason := self.unreadable.get(item.image)) is not None:
                if item.image in known:  # the reason names the first item that has this image
                    reason = f"item {item.id!r}: image {item.image!r} cannot be read"
                known.add(item.image)
                self.bad.setdefault(item.id, reason)
        return pixels
