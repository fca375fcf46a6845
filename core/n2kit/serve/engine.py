"""A model behind a queue: items in, unit vectors and token counts out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n2kit.bundle.io import load
from n2kit.bundle.manifest import read_manifest
from n2kit.data.items import Item, without_image, without_text
from n2kit.embed.batches import laid_out
from n2kit.embed.encode import encode
from n2kit.errors import BadInput, Failed
from n2kit.serve.batching import Batcher, Closed
from n2kit.serve.problems import Problem
from n2kit.utils.device import pick_device

if TYPE_CHECKING:
    from n2kit.modeling.model import Model
    from n2kit.modeling.prompts import TokenizedPrompt

VIEWS: dict[str, Callable[[Item], Item]] = {
    "multimodal": lambda item: item,
    "text": without_image,
    "image": without_text,
}


@dataclass
class Given:
    """An item to be encoded, with the folder that its image is in; prompt: its tokens, once they are counted."""

    item: Item
    images: Path | None = None
    prompt: TokenizedPrompt | None = None


@dataclass(frozen=True)
class Encoding:
    """The unit vector [d] of an item, and how many tokens were read for it; `problem`: the reason why there is none."""

    vector: np.ndarray | None
    tokens: int
    problem: str | None = None


class Engine:
    """A bundle that encodes the items of many requests."""

    def __init__(
        self, folder: Path, *, device: str | None, most: int, wait: float, observe: Callable[[int, int], None]
    ) -> None:
        manifest = read_manifest(folder)
        self.name = _name(folder)
        self.folder, self.fingerprint, self.width = folder, manifest.fingerprint, manifest.width
        self.model: Model = load(folder).to(pick_device(device))
        self.widths = _shorter(self.model, manifest.width)
        variant = self.model.variant
        self.views = [v for v, has in (("multimodal", True), ("text", variant.text), ("image", variant.image)) if has]
        if len(self.views) < 3:  # of a model of one modality all are the same
            self.views = ["multimodal"]
        self.batcher: Batcher[Given, Encoding] = Batcher(
            self._encode, self._tokens, most=most, wait=wait, observe=observe
        )

    async def encode(self, given: Sequence[Given]) -> list[Encoding]:
        """Encode items, together with those of other requests.

        Raises:
            Problem: the server is stopping. BadInput: an item that this model cannot read.
        """
        try:
            done = await asyncio.wrap_future(self.batcher.submit(list(given)))
        except Closed:
            raise Problem(503, "the server is stopping", "ask another one") from None
        for encoding in done:
            if encoding.problem is not None:
                raise BadInput(encoding.problem)
        return done

    async def vectors(self, given: Sequence[Given]) -> np.ndarray:
        """Encode items to unit vectors [n, d]."""
        return np.stack([e.vector for e in await self.encode(given) if e.vector is not None])

    def _tokens(self, given: Given) -> int:
        """Count the tokens of an item, which stay with it; none of one that this model cannot read."""
        prompt = next(iter(laid_out(self.model.prompt_builder, [given.item]).values()), None)
        given.prompt = prompt
        return 0 if prompt is None else len(prompt.ids)

    def _encode(self, given: list[Given]) -> list[Encoding]:
        """Encode a batch; items of one folder of images together."""
        found: list[Encoding | None] = [None] * len(given)
        for folder in dict.fromkeys(one.images for one in given):
            places = [n for n, one in enumerate(given) if one.images == folder]
            items = [replace(given[n].item, id=str(n)) for n in places]
            prompts = {id(item): p for item, n in zip(items, places, strict=True) if (p := given[n].prompt) is not None}
            done = encode(self.model, items, images=folder, on_bad_image="skip", prompts=prompts)
            rows = dict(zip(done.ids, done.vectors, strict=True))
            for n in places:
                problem = None if str(n) in rows else _reworded(done.skipped.get(str(n)), n, given[n].item.id)
                tokens = 0 if (prompt := given[n].prompt) is None else len(prompt.ids)
                found[n] = Encoding(rows.get(str(n)), tokens, problem)
        if any(one is None for one in found):
            raise Failed("an item was lost")
        return [one for one in found if one is not None]

    def close(self) -> None:
        self.batcher.close()


def _name(folder: Path) -> str:
    """Name a bundle: its folder, or that of its run."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "bundle" else folder.name


def _reworded(reason: str | None, number: int, item_id: str) -> str:
    return (reason or f"item {item_id!r} cannot be read").replace(f"item {str(number)!r}", f"item {item_id!r}", 1)


def _shorter(model: Any, width: int) -> tuple[int, ...]:
    """List the widths that a model's vectors may be cut to: those that its loss has trained (Matryoshka), and all."""
    trained = getattr(model.loss, "trained_widths", None)
    return tuple(sorted({width, *(trained(width) if trained else ())}))
