"""Items on two sides of a split that are the same: by id, by the bytes of their image, by their normalised text."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from n2kit.data.image_digests import image_file
from n2kit.data.image_source import GivenImage
from n2kit.data.items import Item, Items
from n2kit.utils.digests import file_digests

KINDS = ("same id", "same image", "same text")
SHORTEST = 12  # characters; shorter texts are alike without being the same item's


def normalised(item: Item) -> str:
    """Return an item's text as it is compared: letters and digits alone, in one case."""
    text = " ".join((item.title, item.content, *item.topics))
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def same_items(items: Iterable[Item], images: Path | None) -> dict[str, list[list[str]]]:
    """Group the ids of items that have the same image, and of those that have the same text: kind → groups of two or more."""
    chosen = list(items)
    files = [image_file(item.image, images) for item in chosen]
    digests = iter(file_digests(file for file in files if file is not None))
    by_image: dict[str, list[str]] = defaultdict(list)
    by_text: dict[str, list[str]] = defaultdict(list)
    for item, file in zip(chosen, files, strict=True):
        digest = next(digests) if file is not None else None
        if digest is None and (isinstance(item.image, GivenImage) or item.image.startswith("content:")):
            digest = str(item.image)
        if digest is not None:
            by_image[digest].append(item.id)
        if len(text := normalised(item)) >= SHORTEST:
            by_text[text].append(item.id)
    return {
        "same image": [group for group in by_image.values() if len(group) > 1],
        "same text": [group for group in by_text.values() if len(group) > 1],
    }


def find_leaks(
    splits: Mapping[str, set[str]],
    items: Items,
    images: Path | None,
    groups: Mapping[str, list[list[str]]] | None = None,
) -> dict[str, list[tuple[str, str]]]:
    """Find pairs of items, of a split and of a later one, that are the same: kind → (id, id).

    Args:
        splits: name → ids, in order; groups: what `same_items` returned, if it was asked before.
    """
    names = list(splits)
    found: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
    for n, name in enumerate(names):
        for later in names[n + 1 :]:
            found["same id"] += [(one, one) for one in sorted(splits[name] & splits[later])]
    used = set().union(*splits.values()) if splits else set()
    for kind, same in (groups or same_items((i for i in items if i.id in used), images)).items():
        for group in same:
            first: dict[str, str] = {}
            for one in group:
                for name in names:
                    if one in splits[name]:
                        first.setdefault(name, one)
            there = list(dict.fromkeys(first.values()))
            found[kind] += [(there[0], other) for other in there[1:]]
    return {kind: pairs for kind, pairs in found.items() if pairs}
