"""A check of all images before the first step, so that a missing one does not end a training in the middle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from n2kit.data.images import UnreadableImage, check_image
from n2kit.data.images import check_images as check_all
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput
from n2kit.inputs.reader import OnBadImage


def check_images(
    items: Items, pairs: Pairs, val_pairs: Pairs | None, images: Path | None, on_bad_image: OnBadImage
) -> None:
    """Check that the images of all pairs can be found, and that their headers can be read; none is decoded.

    Raises:
        UnreadableImage: under policy `error`, those that cannot be read. BadInput: under `skip`, no validation pair is left.
    """
    if on_bad_image == "text-only":
        return
    used = [items[item_id] for item_id in _ids([*pairs, *pairs.negatives.values(), *(val_pairs or ())])]
    if on_bad_image == "error":
        check_all(used, images)
        return
    bad: dict[str, str] = {}
    for item in used:
        try:
            if item.image:
                check_image(item, images)
        except UnreadableImage as problem:
            bad[item.id] = problem.message
    if val_pairs and all(not bad.keys().isdisjoint(pair) for pair in val_pairs):
        raise BadInput("no validation pair whose two items can be read", "; ".join(list(bad.values())[:3]))


def _ids(groups: Iterable[Iterable[str]]) -> dict[str, None]:
    """Collect all ids, each once."""
    return {i: None for group in groups for i in group}
