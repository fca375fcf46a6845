"""The data that all cells of a matrix are trained and evaluated on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from n2kit.bench.matrix.spec import MatrixSpec
from n2kit.data.fetch import Progress
from n2kit.data.fetched import fetched_folder
from n2kit.data.image_digests import images_digest
from n2kit.data.items import Items, read_items
from n2kit.data.modalities import check_modalities
from n2kit.data.pair_columns import FIELDS as PAIR_FIELDS
from n2kit.data.pairs import Pairs, read_ids, read_pairs
from n2kit.errors import BadInput, counted, truncate_list
from n2kit.recipe.variants import SPECS, VariantSpec


@dataclass(frozen=True)
class BenchData:
    """Items and pairs, read once."""

    items: Items
    pairs: Pairs
    val_pairs: Pairs | None
    test_pairs: Pairs
    pool: list[str] | None
    images: Path | None
    on_bad_image: Any  # n2kit.inputs.reader.OnBadImage, which is beside torch
    dropped: tuple[str, ...] = ()  # rows that a lenient reading left out

    @cached_property
    def evaluated_items(self) -> Items:
        """The items whose vectors an evaluation needs: pool and test pairs; without a pool, all of them."""
        if self.pool is None:
            return self.items
        named = {*self.pool, *(i for pair in self.test_pairs for i in pair)}
        return Items([item for item in self.items if item.id in named])

    @property
    def image_count(self) -> int:
        """The number of image files that the items name."""
        return len({item.image for item in self.items if item.image})

    @cached_property
    def digests(self) -> dict[str, str | None]:
        """Hashes that identify the data by its content, without any path."""
        pool = None if self.pool is None else hashlib.sha256(json.dumps(sorted(self.pool)).encode()).hexdigest()[:16]
        return {
            "items": self.items.digest(),
            "images": images_digest(self.items, self.images),
            "pairs": self.pairs.digest(),
            "val_pairs": self.val_pairs.digest() if self.val_pairs else None,
            "test_pairs": self.test_pairs.digest(),
            "pool": pool,
            "on_bad_image": self.on_bad_image,
        }


def read_data(matrix: MatrixSpec, progress: Progress | None = None) -> tuple[BenchData, list[str]]:
    """Read the data that a matrix names, and fetch images that are URLs; the notes say what the items have, and what was left out.

    Raises:
        BadInput: a file that is not named, not there, or has unusable rows.
    """
    for name in ("items", "pairs", "test_pairs"):
        if getattr(matrix, name) is None:
            flag = f"--{name.replace('_', '-')}"
            raise BadInput(f"the matrix names no {name}", f"{flag} FILE, or `{name}: FILE` in the matrix file")
    assert matrix.items is not None
    assert matrix.pairs is not None
    assert matrix.test_pairs is not None
    if matrix.images is not None and not matrix.images.is_dir():
        raise BadInput(f"no images folder {matrix.images}", "the folder that image paths are relative to")
    how: dict[str, Any] = {"lenient": matrix.lenient, "encoding": matrix.encoding}
    of_pairs: dict[str, Any] = {"columns": {name: column for name, column in matrix.map.items() if name in PAIR_FIELDS}}
    of_items = {name: column for name, column in matrix.map.items() if name not in PAIR_FIELDS}
    items = read_items(matrix.items, columns=of_items, format=matrix.format, **how)
    pairs = read_pairs(matrix.pairs, items, graded=True, negatives=True, **of_pairs, **how)
    test = read_pairs(matrix.test_pairs, items, **of_pairs, **how)
    val = read_pairs(matrix.val_pairs, items, **of_pairs, **how) if matrix.val_pairs else None
    pool = read_ids(matrix.pool, items, **how) if matrix.pool else None
    read = {matrix.items: items, matrix.pairs: pairs, matrix.test_pairs: test, matrix.val_pairs: val}
    dropped = {file: r.dropped for file, r in read.items() if r is not None and r.dropped}
    notes = [items.summary(), *items.notes]
    notes += [f"{file}: dropped {counted(len(rows), 'row')}: {truncate_list(rows)}" for file, rows in dropped.items()]
    notes += [note for r in (pairs, test, val) if r is not None for note in r.notes]
    images, fetched = fetched_folder(
        items, matrix.images, matrix.fetch_images, private=matrix.fetch_private, progress=progress
    )
    left_out = tuple(chain.from_iterable(dropped.values()))
    return BenchData(items, pairs, val, test, pool, images, matrix.on_bad_image, left_out), [*notes, *fetched]


def check_data(matrix: MatrixSpec, data: BenchData, variants: Iterable[str]) -> None:
    """Check that items have what the variants of a matrix read.

    Raises:
        BadInput: none has a picture, or none a text.
    """
    reads: list[VariantSpec] = [SPECS[name] for name in dict.fromkeys(variants)]
    if reads:
        check_modalities(
            data.items, matrix.items, "a variant of the matrix", images=any(spec.image for spec in reads),
            texts=any(spec.text for spec in reads), allow_no_images=matrix.allow_no_images, allow_no_texts=matrix.allow_no_texts,
        )  # fmt: skip
