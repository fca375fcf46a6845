"""Items read for a folder of vectors: a batch in memory at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit_cli import options
from n2kit_cli.output import say

if TYPE_CHECKING:
    from n2kit.data.item import Item
    from n2kit.data.item_stream import ItemStream
    from n2kit_cli.reading import Reading

BATCH = 1024  # items whose images are fetched at a time


class Streamed:
    """The items of a file as the flags say, for a model of a variant; what was read is said at the end of the pass.

    Raises (at the end):
        BadInput: rows that cannot be used; no item has what the variant reads.
    """

    def __init__(self, reading: Reading, variant: str, without: str | None = None) -> None:
        from n2kit.data.item_stream import ItemStream
        from n2kit.recipe.variants import SPECS

        self.reading, self.variant, self.without = reading, variant, without
        self.reads = SPECS[variant]
        self.columns = options.columns(reading.renames)[0]
        self.stream: ItemStream = ItemStream(
            reading.items, columns=self.columns, format=reading.item_format, encoding=reading.encoding
        )
        self.passed = False

    @property
    def source(self) -> str:
        """Identify the items: by the file's content, and how it is read."""
        from n2kit.data.shards import shards_of
        from n2kit.utils.digests import file_digests

        content = list(file_digests(shards_of(self.reading.items)))
        how = [self.columns, self.reading.item_format, self.reading.encoding, self.reading.lenient, self.without]
        return hashlib.sha256(json.dumps([*content, how]).encode()).hexdigest()[:32]

    def __iter__(self) -> Iterator[Item]:
        from n2kit.data.item import without_image, without_text
        from n2kit.embed.dataset.spool import batches

        take = {"image": without_image, "text": without_text}.get(self.without or "", _as_it_is)
        for batch in batches(iter(self.stream), BATCH):
            self._fetch(batch)
            yield from (take(item) if item.image and item.has_text else item for item in batch)
        self._check()
        self.passed = True

    def facts(self) -> dict[str, Any] | None:
        """Say what was read, as under `--json`; None where nothing was read this time."""
        return self.stream.facts() if self.passed else None

    def _check(self) -> None:
        from n2kit.data.items import check_rows
        from n2kit.data.modalities import check_modalities

        options.tell_read(self.stream, self.reading.items, lenient=self.reading.lenient)
        check_rows(self.stream, self.reading.lenient)
        check_modalities(
            self.stream, self.reading.items, f"variant {self.variant}", images=self.reads.image, texts=self.reads.text,
            allow_no_images=self.reading.allow_no_images, allow_no_texts=self.reading.allow_no_texts,
        )  # fmt: skip

    def _fetch(self, batch: list[Item]) -> None:
        """Fetch a batch's images that are URLs, if that is wanted."""
        from n2kit.data.fetched import fetched_folder
        from n2kit.data.items import Items

        if self.reading.fetch_images is not None and self.reads.image:
            where = self.reading.images, self.reading.fetch_images
            for failed in fetched_folder(Items(batch), *where, private=self.reading.fetch_private)[1][1:]:
                say(failed)


def _as_it_is(item: Item) -> Item:
    return item


def images_folder(reading: Reading) -> Path | None:
    """Return the folder that image paths are relative to: that of --fetch-images, where images are fetched.

    Raises:
        BadInput: two folders are named.
    """
    from n2kit.data.fetched import fetched_folder
    from n2kit.data.items import Items

    return fetched_folder(Items([]), reading.images, reading.fetch_images, private=reading.fetch_private)[0]
