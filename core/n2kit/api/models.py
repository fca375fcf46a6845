"""Models: built, loaded, saved, and handed to sentence-transformers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from n2kit import builder
from n2kit.api.in_python import in_python
from n2kit.bundle import io
from n2kit.errors import Unavailable

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from n2kit.modeling.model import Model

build = in_python(builder.build)
load = in_python(io.load)
save = in_python(io.save)


@in_python
def as_sentence_transformer(bundle: str | Path | Model, *, device: str | None = None) -> SentenceTransformer:
    """Make a `SentenceTransformer` of a model, a bundle or a run: the same vectors, and its trainer goes on from them.

    It encodes texts, paths, images of Pillow, and dicts of an item's fields. `n2kit export --to sentence-transformers` writes it as a
    folder, whose loading needs `trust_remote_code=True`; this does not.

    Raises:
        BadInput: no bundle, or a damaged one. Unavailable: sentence-transformers is not installed.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise Unavailable("sentence-transformers is not installed", "pip install 'n2kit[export]'")
    from n2kit.export.sentence_transformer import as_sentence_transformer as made

    return made(bundle, device=device)
