"""Items encoded in one call, without a file: the work of `Model.encode`, which needs neither training nor evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from n2kit.api.in_python import in_python
from n2kit.data.given import Given, as_items
from n2kit.embed.encode import encode
from n2kit.errors import BadInput
from n2kit.inputs.reader import OnBadImage
from n2kit.modeling.model import Model
from n2kit.utils.device import Precision


@in_python
def encode_rows(
    model: Model,
    items: Given,
    *,
    images: str | Path | None,
    batch_size: int | None,
    on_bad_image: OnBadImage,
    precision: Precision,
    show_progress: bool,
) -> np.ndarray:
    """Encode items to unit vectors, one row an item: [n, D]; see `Model.encode`.

    Raises:
        BadInput: what `encode` raises; policy `skip`, under which rows would be missing; an item with nothing to read.
    """
    way = "n2kit.embed leaves them out, and says which"
    if on_bad_image == "skip":
        raise BadInput('encode gives one row an item, and on_bad_image="skip" leaves items out', way)
    wanted = as_items(items)
    with progress_bar("encode", show_progress) as bar:
        encoded = encode(
            model, wanted, images=images, batch_size=batch_size, on_bad_image=on_bad_image, precision=precision, progress=bar
        )  # fmt: skip
    kept = set(encoded.ids)
    if missing := [item.id for item in wanted if item.id not in kept]:
        raise BadInput(encoded.skipped[missing[0]], way)
    return encoded.vectors


@contextlib.contextmanager
def progress_bar(what: str, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Give a function (done, total) that moves a bar on stderr, with the time left from the first batch on; None for no bar."""
    if not shown:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(desc=what, smoothing=0) as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move
