"""A check of items against what a model reads: a column that was not understood must not be missing in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from n2kit.errors import BadInput, truncate_list

if TYPE_CHECKING:
    from n2kit.data.items_read import ItemsRead


def check_modalities(
    items: ItemsRead,
    where: object,
    reader: str,
    *,
    images: bool,
    texts: bool,
    allow_no_images: bool = False,
    allow_no_texts: bool = False,
) -> None:
    """Check that at least one item has each of what is read.

    Args:
        where: the items' file. reader: of whom the message speaks, such as `variant notellm2`. images, texts: what it reads.

    Raises:
        BadInput: no item has an image or a text, which is not allowed to be missing; the hint names the columns that were not read.
    """
    count = items.counts()
    no_image = images and not count["image"]
    no_text = texts and not any(count[name] for name in ("title", "topics", "content"))
    unread = f" (not read: {truncate_list(items.unread).replace('; ', ', ')})" if items.unread else ""
    if (no_image or not images) and (no_text or not texts):
        what = " or ".join(["a picture"] * images + ["a text"] * texts)
        field = "title" if texts else "image"
        raise BadInput(f"{where}: no item has {what}", f"{items.propose or f'--map {field}=COLUMN'} names it{unread}")
    if no_image and not allow_no_images:
        hint = f"{_proposed(items, 'image')}{unread}, or --allow-no-images goes on with texts alone"
        raise BadInput(f"{where}: no item has a picture, and {reader} reads pictures", hint)
    if no_text and not allow_no_texts:
        hint = f"{_proposed(items, 'title')}{unread}, or --allow-no-texts goes on with pictures alone"
        raise BadInput(f"{where}: no item has a text (title, topics or content), and {reader} reads texts", hint)


def _proposed(items: ItemsRead, field: str) -> str:
    """Write the `--map` that may bring a field."""
    return items.propose if items.propose and f" {field}=" in items.propose else f"--map {field}=COLUMN"
